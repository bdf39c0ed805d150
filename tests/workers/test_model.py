"""Loading models: what is read is whole, float32 and frozen; what is broken is one kind of error."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from search_spaces.architectures import UnsupportedModelError
from search_spaces.registry import RegistryError
from workers.model import ModelConfig, ModelError, load_model, load_structure


@pytest.fixture
def folder(tiny_text: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_text.model.id, tmp_path / "model"))


@pytest.mark.parametrize("job", ["tiny_text", "tiny_image"])
def test_structure_needs_no_weights(job: str, request: pytest.FixtureRequest) -> None:
    config = request.getfixturevalue(job).model
    loaded = load_model(config)
    assert load_structure(config) == loaded.structure
    assert not loaded.model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.model.parameters())


@pytest.mark.parametrize("size", [0, 10, 5000])
def test_a_cut_weight_file_is_refused(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match="can't be loaded for the task 'text-classification'"):
        load_model(ModelConfig(id=str(folder)))


def test_missing_weights_are_refused_by_name(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack weights, which would be random: classifier\.weight; check"):
        load_model(ModelConfig(id=str(folder)))


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 65}))
    with pytest.raises(ModelError, match=r"can't be loaded for the task|lack weights"):
        load_model(ModelConfig(id=str(folder)))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_a_broken_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="is not the JSON of a model configuration"):
        load_structure(ModelConfig(id=str(folder)))


def test_a_folder_without_configuration_says_what_it_has(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json; got \['model\.safetensors'"):
        load_structure(ModelConfig(id=str(folder)))


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "a/b/c"])
def test_paths_are_not_taken_for_hub_ids(name: str) -> None:
    with pytest.raises(ModelError, match="no folder"):
        load_structure(ModelConfig(id=name))


def test_an_unsupported_architecture_lists_the_supported_ones(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 1, "vocab_size": 50}))
    with pytest.raises(UnsupportedModelError, match="'gpt2' are not supported; supported: bert, "):
        load_structure(ModelConfig(id=str(folder)))


def test_a_model_of_another_task_is_refused(tiny_image: Any) -> None:
    with pytest.raises(ModelError, match="for the task 'text-classification'"):
        load_structure(ModelConfig(id=tiny_image.model.id))


def test_unknown_tasks_and_odd_revisions() -> None:
    with pytest.raises(RegistryError, match="unknown task 'guess'; supported: causal-lm, image-classification, "):
        load_structure(ModelConfig(id="x", task="guess"))
    with pytest.raises(ValidationError, match="a revision has letters"):
        ModelConfig(id="x", revision="../main")
