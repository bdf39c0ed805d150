"""Outlines: what the headers of a model's files tell is what the model itself says, or nothing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from search_spaces.architectures import outlined_structure, structure_of
from search_spaces.outline import read_config, read_outline

_BLOCK = {"hidden_size": 32, "num_hidden_layers": 11, "num_attention_heads": 4, "intermediate_size": 48}
_DECODER = {**_BLOCK, "vocab_size": 50, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
_DECODER |= {"max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}
_ENCODER = {**_BLOCK, "vocab_size": 50, "pad_token_id": 1, "num_labels": 3}

_T = transformers
_CLASSIFIER, _LANGUAGE, _IMAGE = "ForSequenceClassification", "ForCausalLM", "ForImageClassification"
FAMILIES: Mapping[str, tuple[str, Callable[[], nn.Module]]] = {
    "bert": (_CLASSIFIER, lambda: _T.BertForSequenceClassification(_T.BertConfig(**_ENCODER))),
    "roberta": (_CLASSIFIER, lambda: _T.RobertaForSequenceClassification(_T.RobertaConfig(**_ENCODER))),
    "distilbert": (
        _CLASSIFIER,
        lambda: _T.DistilBertForSequenceClassification(
            _T.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
        ),
    ),
    "llama": (_LANGUAGE, lambda: _T.LlamaForCausalLM(_T.LlamaConfig(**_DECODER))),
    "llama, tied": (_LANGUAGE, lambda: _T.LlamaForCausalLM(_T.LlamaConfig(**_DECODER, tie_word_embeddings=True))),
    "llama, classifier": (
        _CLASSIFIER,
        lambda: _T.LlamaForSequenceClassification(_T.LlamaConfig(**_DECODER, num_labels=3)),
    ),
    "qwen2": (_LANGUAGE, lambda: _T.Qwen2ForCausalLM(_T.Qwen2Config(**_DECODER))),
    "qwen3": (_LANGUAGE, lambda: _T.Qwen3ForCausalLM(_T.Qwen3Config(**_DECODER))),
    "gemma": (_LANGUAGE, lambda: _T.GemmaForCausalLM(_T.GemmaConfig(**_DECODER))),
    "gemma2": (_LANGUAGE, lambda: _T.Gemma2ForCausalLM(_T.Gemma2Config(**_DECODER))),
    "glm": (_LANGUAGE, lambda: _T.GlmForCausalLM(_T.GlmConfig(**_DECODER, attention_bias=True))),
    "glm4": (_LANGUAGE, lambda: _T.Glm4ForCausalLM(_T.Glm4Config(**_DECODER, attention_bias=True))),
    "vit": (_IMAGE, lambda: _T.ViTForImageClassification(_T.ViTConfig(**_BLOCK, image_size=24, patch_size=8))),
    "deit": (_IMAGE, lambda: _T.DeiTForImageClassification(_T.DeiTConfig(**_BLOCK, image_size=24, patch_size=8))),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_outline_of_a_saved_model_says_what_the_model_says(name: str, tmp_path: Path) -> None:
    ending, make = FAMILIES[name]
    model = make()
    model.save_pretrained(tmp_path)
    assert outlined_structure(tmp_path, ending=ending) == structure_of(model)


@pytest.mark.parametrize(("beside", "columns"), [({}, 8), ({"partial_rotary_factor": 0.5}, 4)])
def test_a_configuration_by_transformers_4_is_read_too(beside: dict[str, Any], columns: int, folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    del content["rope_parameters"]
    path.write_text(json.dumps({**content, "rope_theta": 10_000.0, **beside}))
    structure = outlined_structure(folder, ending="ForCausalLM")
    assert structure is not None
    assert {unit.rotation.columns for unit in structure.units if unit.rotation} == {columns}


def test_files_in_parts_are_read_too(tmp_path: Path) -> None:
    model = _T.LlamaForCausalLM(_T.LlamaConfig(**_DECODER))
    model.save_pretrained(tmp_path, max_shard_size="50kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert outlined_structure(tmp_path, ending="ForCausalLM") == structure_of(model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _T.LlamaForCausalLM(_T.LlamaConfig(**_DECODER)).save_pretrained(tmp_path)
    return tmp_path


def _without(folder: Path, key: str) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: _without(folder, "architectures"),
        lambda folder: _without(folder, "tie_word_embeddings"),
        lambda folder: _without(folder, "num_key_value_heads"),
        lambda folder: (folder / "config.json").write_text("["),
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: save_file({"model.norm.weight": torch.zeros(32)}, folder / "model.safetensors"),
        lambda folder: save_file({"model.codes": torch.zeros(4, dtype=torch.int8)}, folder / "model.safetensors"),
    ],
)
def test_what_is_not_plainly_there_is_left_to_the_model(folder: Path, spoil: Callable[[Path], object]) -> None:
    spoil(folder)
    assert outlined_structure(folder, ending="ForCausalLM") is None


def test_weights_of_another_class_are_left_to_the_model(folder: Path) -> None:
    config = read_config(folder)
    assert config is not None
    assert read_outline(folder, config, ending="ForCausalLM") is not None
    assert read_outline(folder, config, ending="ForSequenceClassification") is None


def test_a_shard_outside_the_folder_is_not_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    assert outlined_structure(folder, ending="ForCausalLM") is None
