"""Exported sentence encoders as other programs read them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from torch.nn import functional

import paretrim
from search_spaces.policy import Choice, Policy
from workers.export.huggingface import export_huggingface
from workers.model import ModelConfig, load_model
from workers.trial import TrialWorker

if TYPE_CHECKING:
    from conftest import TinyJob

TEXTS = ["w1 w2 w3 w4", "w7"]


@pytest.fixture(scope="module")
def worker(tiny_pairs: "TinyJob", tmp_path_factory: pytest.TempPathFactory) -> TrialWorker:
    return TrialWorker(tiny_pairs.spec(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def folder(worker: TrialWorker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of all feed-forward channels, which plain classes load."""
    folder = tmp_path_factory.mktemp("exported")
    summary = export_huggingface(worker.model_of(pruned(worker)), pruned(worker), folder, processor=worker.processor)
    assert summary.plain
    return folder


def pruned(worker: TrialWorker) -> Policy:
    names = [unit.name for unit in worker.structure.units if "feed_forward" in unit.name]
    return worker.space.dense_policy().replace(**dict.fromkeys(names, Choice(32, "fp32")))


def searched(worker: TrialWorker) -> torch.Tensor:
    inputs = worker.processor(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found: torch.Tensor = worker.model_of(pruned(worker))(**inputs).logits
    return found


def test_transformers_load_the_encoder_by_its_own_class(worker: TrialWorker, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    model, loading = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is transformers.BertModel
    assert set(loading["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not loading["unexpected_keys"]
    inputs = worker.processor(TEXTS, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"][..., None]
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state
    pooled = functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    torch.testing.assert_close(pooled, searched(worker))


def test_an_export_is_a_model_to_search_again(worker: TrialWorker, folder: Path) -> None:
    loaded = load_model(ModelConfig(id=str(folder), task="sentence-similarity"))
    inputs = loaded.processor(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        again, through_ours = loaded.model(**inputs).logits, paretrim.load(folder)(**inputs).logits
    assert again.equal(searched(worker))
    assert through_ours.equal(again)


def test_sentence_transformers_give_the_same_embeddings(worker: TrialWorker, folder: Path) -> None:
    package = pytest.importorskip("sentence_transformers")
    found = package.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, searched(worker), rtol=1e-4, atol=1e-5)


def test_what_no_plain_class_loads_has_no_modules(worker: TrialWorker, tmp_path: Path) -> None:
    policy = worker.space.dense_policy().replace(**{"layer.0.attention": Choice(0, "fp32")})
    assert not export_huggingface(worker.model_of(policy), policy, tmp_path).plain
    assert not (tmp_path / "modules.json").exists()
