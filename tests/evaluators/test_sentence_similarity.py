"""Pairs of texts as examples, and scores of embeddings, beside plain transformers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from scipy.stats import spearmanr
from tiny_sentences import write_encoder, write_pooling
from torch.nn import functional

from evaluators.quality import QualityEvaluator
from evaluators.rungs import rung_order, rung_sizes
from evaluators.scores import QualityMeasure
from evaluators.tasks import Example, TaskError
from evaluators.tasks.base import score_together
from workers.data import load_splits
from workers.model import LoadedModel, ModelConfig, ModelError, load_model, load_structure
from workers.trial import run_model

if TYPE_CHECKING:
    from conftest import TinyJob


@pytest.fixture(scope="module")
def loaded(tiny_pairs: "TinyJob") -> LoadedModel:
    return load_model(tiny_pairs.model)


@pytest.fixture(scope="module")
def examples(tiny_pairs: "TinyJob", loaded: LoadedModel) -> tuple[Example, ...]:
    return load_splits(tiny_pairs.data, loaded.task, seed=0).search


def embed(folder: str, texts: list[str], *, mode: str = "mean") -> torch.Tensor:
    """What transformers' own model gives, a text at a time, without padding."""
    model, tokenizer = (
        transformers.AutoModel.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    found = []
    for text in texts:
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        found.append(hidden[0] if mode == "cls" else hidden.mean(0))
    return torch.stack(found)


class TestPooling:
    TEXTS = ("w1 w2 w3 w4 w5", "w7")

    def embeddings(self, folder: Path) -> torch.Tensor:
        loaded = load_model(ModelConfig(id=str(folder), task="sentence-similarity"))
        inputs = loaded.processor(list(self.TEXTS), padding=True, return_tensors="pt")
        return run_model(loaded.model, inputs, 2)

    @pytest.mark.parametrize(
        ("content", "mode"),
        [
            ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
            ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
            ({"pooling_mode": "cls"}, "cls"),
        ],
    )
    @pytest.mark.parametrize("normalize", [True, False])
    def test_is_that_of_the_modules_beside_the_model(
        self, tiny_text: "TinyJob", tmp_path: Path, content: dict[str, Any], mode: str, normalize: bool
    ) -> None:
        modules = ("Pooling", "Normalize") if normalize else ("Pooling",)
        write_encoder(tmp_path, Path(tiny_text.model.id), modules=modules)
        write_pooling(tmp_path, **content)
        expected = embed(str(tmp_path), list(self.TEXTS), mode=mode)
        expected = functional.normalize(expected, dim=-1) if normalize else expected
        torch.testing.assert_close(self.embeddings(tmp_path), expected, rtol=1e-4, atol=1e-5)

    def test_modules_are_known_wherever_their_package_keeps_them(self, tiny_text: "TinyJob", tmp_path: Path) -> None:
        write_encoder(tmp_path, Path(tiny_text.model.id))
        modules = json.loads((tmp_path / "modules.json").read_text())
        places = ("base.modules.transformer", "sentence_transformer.modules.pooling", "base.modules.normalize")
        for module, place in zip(modules, places, strict=True):
            module["type"] = f"sentence_transformers.{place}.{module['type'].rpartition('.')[2]}"
        (tmp_path / "modules.json").write_text(json.dumps(modules))
        expected = functional.normalize(embed(str(tmp_path), list(self.TEXTS)), dim=-1)
        torch.testing.assert_close(self.embeddings(tmp_path), expected, rtol=1e-4, atol=1e-5)

    def test_is_the_plain_mean_where_nothing_is_said(self, tiny_text: "TinyJob", tmp_path: Path) -> None:
        write_encoder(tmp_path, Path(tiny_text.model.id), modules=())
        expected = embed(str(tmp_path), list(self.TEXTS))
        torch.testing.assert_close(self.embeddings(tmp_path), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"pooling_mode_max_tokens": True}, r"pooled by one of mean, cls.*pooling_mode_max_tokens"),
            ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, r"\['mean', 'cls'\]"),
            ({}, r"names \[\]"),
        ],
    )
    def test_of_another_kind_is_refused(
        self, tiny_text: "TinyJob", tmp_path: Path, content: dict[str, Any], message: str
    ) -> None:
        write_encoder(tmp_path, Path(tiny_text.model.id))
        write_pooling(tmp_path, **content)
        with pytest.raises(ModelError, match=message):
            self.embeddings(tmp_path)

    def test_a_layer_behind_it_is_refused(self, tiny_text: "TinyJob", tmp_path: Path) -> None:
        write_encoder(tmp_path, Path(tiny_text.model.id), modules=("Pooling", "Dense"))
        with pytest.raises(ModelError, match=r"has sentence_transformers.models.Dense, which is not known"):
            self.embeddings(tmp_path)

    def test_a_script_that_shows_how_it_was_trained_does_no_harm(self, tiny_text: "TinyJob", tmp_path: Path) -> None:
        write_encoder(tmp_path, Path(tiny_text.model.id))
        (tmp_path / "train_script.py").write_text("raise SystemExit\n")
        assert self.embeddings(tmp_path).shape == (2, 32)
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "train_script.py").write_text("")
        with pytest.raises(ModelError, match=r"\*\.py beside the weights"):
            self.embeddings(tmp_path)


def test_models_of_other_kinds_are_refused(tiny_image: "TinyJob") -> None:
    config = ModelConfig(id=tiny_image.model.id, task="sentence-similarity")
    for load in (load_model, load_structure):
        with pytest.raises(ModelError, match=r"embedded by models of type bert.*got 'vit'"):
            load(config)


def test_structure_is_the_same_with_and_without_weights_and_has_no_head(tiny_pairs: "TinyJob") -> None:
    structure = load_structure(tiny_pairs.model)
    assert structure == load_model(tiny_pairs.model).structure
    assert len(structure.units) == 5
    assert {part.kind.value for part in structure.fixed} == {"embedding", "layer_norm"}


@pytest.mark.parametrize("batch", [1, 3])
def test_scores_are_those_of_texts_embedded_one_by_one(
    tiny_pairs: "TinyJob", loaded: LoadedModel, examples: tuple[Example, ...], batch: int
) -> None:
    evaluator = QualityEvaluator(loaded.task, examples, batch=batch)
    outputs = evaluator.run(lambda inputs, size: run_model(loaded.model, inputs, size))
    cosines = []
    for example in examples:
        masks = example.inputs["attention_mask"].bool()
        tokens = [ids[mask] for ids, mask in zip(example.inputs["input_ids"], masks, strict=True)]
        pair = [run_model(loaded.model, {"input_ids": ids[None]}, 1)[0] for ids in tokens]
        cosines.append(torch.cosine_similarity(*pair, dim=0))
    torch.testing.assert_close(outputs.per_example_N, torch.stack(cosines), rtol=0, atol=1e-5)
    quality = evaluator.score(outputs)
    labels = [example.label for example in examples]
    assert quality.metric == "spearman_cosine"
    assert quality.value == pytest.approx(spearmanr(cosines, labels).statistic, abs=1e-3)
    assert sum(quality.per_example) / len(examples) == pytest.approx(quality.value, abs=1e-6)
    rung = evaluator.evaluate(lambda inputs, size: run_model(loaded.model, inputs, size), 0)
    rows = list(rung_order(len(examples))[: rung_sizes(len(examples))[0]])
    expected = spearmanr(outputs.per_example_N[rows], [labels[row] for row in rows]).statistic
    assert rung.value == pytest.approx(expected, abs=1e-3)


def test_rounding_gives_pairs_of_equal_texts_no_order(loaded: LoadedModel) -> None:
    cosines, labels = torch.tensor([0.2, 1.0, 1.0, 1.0, 0.5]), [0, 5, 4, 5, 2]
    noise = torch.tensor([0.0, 2e-7, -2e-7, -1e-7, 0.0])
    exact, blurred = (score_together(loaded.task, values, labels) for values in (cosines, cosines + noise))
    assert blurred.equal(exact)
    assert exact.mean().item() == pytest.approx(spearmanr(cosines, labels).statistic)


def test_fidelity_is_1_for_the_dense_model_and_falls_with_noise(
    loaded: LoadedModel, examples: tuple[Example, ...]
) -> None:
    evaluator = QualityEvaluator(loaded.task, examples, batch=1, measure=QualityMeasure.FIDELITY)
    dense = evaluator.run(lambda inputs, size: run_model(loaded.model, inputs, size))
    evaluator.set_dense(dense)
    noise = torch.Generator().manual_seed(0)

    def blurred(inputs: Any, size: int) -> torch.Tensor:
        found = run_model(loaded.model, inputs, size)
        return found + 0.05 * torch.randn(found.shape, generator=noise)

    exact, other = evaluator.score(dense), evaluator.evaluate(blurred)
    assert (exact.value, exact.kl_to_dense) == (1, 0)
    assert evaluator.constant_fidelity < other.value < 1
    assert other.value + other.kl_to_dense == pytest.approx(1)


class TestRows:
    @pytest.mark.parametrize(
        ("inputs", "label", "message"),
        [
            ([["w1", "w2"], "w1 w2"], "1", r"pairs of texts; got 'w1 w2' in row 1; set data.columns.pair"),
            ([["w1", "w2"], ["w1", " "]], "1", r"not empty; got ' ' in row 1"),
            ([["w1", "w2"], ["w1", "w2"]], "alike", r"labels are numbers.*got 'alike' in row 0"),
            ([["w1", "w2"], ["w1", "w2"]], float("nan"), r"labels are numbers.*got nan in row 0"),
        ],
    )
    def test_that_do_not_fit_are_named(self, loaded: LoadedModel, inputs: list[Any], label: Any, message: str) -> None:
        with pytest.raises(TaskError, match=message):
            loaded.task.encode(inputs, [label] * len(inputs), max_length=16)

    def test_are_cut_and_padded(self, loaded: LoadedModel) -> None:
        (example,) = loaded.task.encode([("w1 " * 40, "w2")], ["4.5"], max_length=12)
        assert (example.length, example.label) == (12, 4.5)
        inputs = loaded.task.collate([example, *loaded.task.encode([("w1", "w2 w3")], [-100], max_length=12)])
        assert inputs["input_ids"].shape == (4, 12)
        assert inputs["attention_mask"].sum(1).tolist() == [12, 3, 3, 4]


def test_pooling_stands_in_the_configuration_of_what_is_saved(loaded: LoadedModel, tmp_path: Path) -> None:
    loaded.model.config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["sentence_pooling"], saved["sentence_normalize"]) == ("mean", True)
