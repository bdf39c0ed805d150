"""Language models: reading texts, windows and bytes, and scoring tokens against transformers' own loss."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evaluators import passes, quality
from evaluators.quality import QualityEvaluator
from evaluators.scores import QualityMeasure
from evaluators.tasks import TASKS, TaskError
from evaluators.tasks.base import IGNORED
from workers.data import Columns, DataConfig, DataError, load_splits
from workers.model import LoadedModel, ModelConfig, load_model

GLM = Path(__file__).parents[3] / "shared" / "models" / "glm-tiny"
WIKITEXT = Path(__file__).parents[3] / "shared" / "data" / "wikitext2" / "valid.txt"
needs_glm = pytest.mark.skipif(
    not (GLM.is_dir() and WIKITEXT.is_file()), reason="../shared/models/glm-tiny or ../shared/data/wikitext2 is absent"
)
TEXT = "Ein Huhn, das fraß, man glaubt es kaum, ein Blatt von einem Gummibaum. " * 40


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level Llama of a few kilobytes with tied embeddings."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    path = tmp_path_factory.mktemp("byte-llama")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(ModelConfig(id=str(folder), task="causal-lm"))


def _forward(loaded: LoadedModel) -> quality.Forward:
    def forward(inputs: Mapping[str, torch.Tensor], _examples: int) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = loaded.model(**inputs).logits
        return logits

    return forward


def _bits_by_transformers(loaded: LoadedModel, ids: list[int]) -> float:
    """Cross-entropy of one text by the model's own loss, which shifts by itself."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        return float(loaded.model(input_ids=tokens, labels=tokens).loss) / math.log(2)


class TestReading:
    def test_a_model_without_a_tokenizer_reads_bytes(self, loaded: LoadedModel) -> None:
        assert loaded.processor is None
        assert loaded.task.metric == "neg_bits_per_byte"
        (example,) = loaded.task.encode(["fraß"], [None], max_length=64)
        assert example.inputs["input_ids"].tolist() == list("fraß".encode())[:-1]
        assert example.label.tolist() == list("fraß".encode())[1:]
        assert example.length == 4

    def test_windows_ask_for_every_byte_once(self, loaded: LoadedModel) -> None:
        data = TEXT.encode()
        windows = loaded.task.cut(TEXT, max_length=50)
        assert windows is not None
        assert {len(window) for window in windows} == {51}
        targets = [byte for e in loaded.task.encode(windows, [None] * len(windows), max_length=50) for byte in e.label]
        assert bytes(targets) == data[1 : 1 + 50 * ((len(data) - 1) // 50)]

    def test_windows_are_no_longer_than_the_model_takes(self, loaded: LoadedModel) -> None:
        windows = loaded.task.cut(TEXT, max_length=1000)
        assert windows is not None
        assert {len(window) for window in windows} == {65}

    def test_texts_are_cut_and_padded(self, loaded: LoadedModel) -> None:
        examples = loaded.task.encode(["abcdef", "xy", "pqr"], [None] * 3, max_length=4)
        batch = loaded.task.collate(examples)
        assert batch["input_ids"].tolist() == [[97, 98, 99, 100], [120, 0, 0, 0], [112, 113, 0, 0]]
        assert batch["attention_mask"].tolist() == [[1] * 4, [1, 0, 0, 0], [1, 1, 0, 0]]
        targets = loaded.task.targets(examples)
        assert targets.tolist() == [[98, 99, 100, 101], [121] + [IGNORED] * 3, [113, 114] + [IGNORED] * 2]

    @pytest.mark.parametrize(
        ("value", "message"),
        [("", "texts that are not empty"), (None, "got None in row 1"), ("a", "has two tokens or more"), ([1], "two")],
    )
    def test_what_is_no_text_is_refused(self, loaded: LoadedModel, value: object, message: str) -> None:
        with pytest.raises(TaskError, match=message):
            loaded.task.encode(["fine", value], [None, None], max_length=8)

    def test_a_small_vocabulary_holds_no_bytes(self) -> None:
        with pytest.raises(TaskError, match=r"needs 256 tokens; got vocab_size=100"):
            TASKS.get("causal-lm")(None, transformers.LlamaConfig(vocab_size=100))

    def test_random_inputs_are_whole(self, loaded: LoadedModel) -> None:
        inputs = loaded.task.random_inputs(2, 9, seed=0)
        assert {name: tuple(t.shape) for name, t in inputs.items()} == dict.fromkeys(inputs, (2, 9))
        assert loaded.model(**inputs).logits.shape == (2, 9, 256)

    def test_with_a_tokenizer_tokens_are_its(self, folder: Path) -> None:
        import tokenizers

        core = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "[S]": 1, "a": 2, "b": 3}, "[UNK]"))
        core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        core.post_processor = tokenizers.processors.TemplateProcessing(single="[S] $A", special_tokens=[("[S]", 1)])
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
        task = TASKS.get("causal-lm")(tokenizer, transformers.LlamaConfig(vocab_size=4))
        assert task.metric == "neg_bits_per_token"
        assert task.encode(["a b b"], [None], max_length=8)[0].inputs["input_ids"].tolist() == [1, 2, 3]
        assert task.cut("a b b a b", max_length=2) == [[2, 3, 3], [3, 2, 3]]


class TestData:
    def test_a_text_file_is_cut_to_windows_and_split(self, loaded: LoadedModel, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_text("".join(f"{n} Hühner und {n * n} Eier.\r\n" for n in range(400)), encoding="utf-8", newline="")
        config = DataConfig(source=str(path), calibration=8, search=20, holdout=20, max_length=48)
        splits = load_splits(config, loaded.task, seed=0)
        parts = (splits.calibration, splits.search, splits.holdout)
        assert [len(part) for part in parts] == [8, 20, 20]
        texts = [bytes(e.label.tolist()) for part in parts for e in part]
        assert len(set(texts)) == 48
        assert all(text in path.read_bytes() for text in texts)

    def test_a_short_file_says_how_many_windows_it_holds(self, loaded: LoadedModel, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_text(TEXT[:300])
        with pytest.raises(DataError, match=r"need 6 different rows .*; .* has 5"):
            load_splits(
                DataConfig(source=str(path), calibration=2, search=2, holdout=2, max_length=60), loaded.task, seed=0
            )

    def test_a_file_that_is_no_text_or_not_there(self, loaded: LoadedModel, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no file"):
            load_splits(DataConfig(source=str(tmp_path / "none.txt")), loaded.task, seed=0)
        (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x80" * 100)
        with pytest.raises(DataError, match=r"can't be read as text: .*UTF-8"):
            load_splits(DataConfig(source=str(tmp_path / "bytes.txt")), loaded.task, seed=0)

    def test_rows_need_no_label_column(self, loaded: LoadedModel, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({"story": f"There were {n} hens."}) + "\n" for n in range(30)))
        config = DataConfig(
            source=str(path), columns=Columns(input="story"), calibration=4, search=6, holdout=6, shuffle=False
        )
        splits = load_splits(config, loaded.task, seed=0)
        assert bytes(splits.calibration[0].label.tolist()) == b"here were 0 hens."


class TestScoring:
    @pytest.mark.parametrize("batch", [1, 3])
    def test_bits_are_transformers_loss(self, loaded: LoadedModel, batch: int) -> None:
        texts = ["a hen", "ein Blatt von einem Gummibaum", "xy", "man glaubt es kaum", "hens"]
        examples = loaded.task.encode(texts, [None] * 5, max_length=64)
        found = QualityEvaluator(loaded.task, examples, batch=batch).evaluate(_forward(loaded))
        expected = [-_bits_by_transformers(loaded, list(text.encode())) for text in texts]
        assert found.metric == "neg_bits_per_byte"
        assert found.per_example == pytest.approx(expected, rel=1e-5)
        assert found.value == pytest.approx(sum(expected) / 5, rel=1e-5)

    def test_divergence_is_the_mean_over_tokens(self, loaded: LoadedModel) -> None:
        examples = loaded.task.encode(["a hen", "kaum", "Gummibaum"], [None] * 3, max_length=64)
        evaluator = QualityEvaluator(loaded.task, examples, batch=2)
        evaluator.set_dense(evaluator.run(_forward(loaded)))
        assert evaluator.evaluate(_forward(loaded)).kl_to_dense == pytest.approx(0, abs=1e-9)

        def flatter(inputs: Mapping[str, torch.Tensor], calls: int) -> torch.Tensor:
            return _forward(loaded)(inputs, calls) / 2

        sums, tokens = 0.0, 0
        for example in examples:
            logits = _forward(loaded)({k: v[None] for k, v in example.inputs.items()}, 1)[0].double()
            log_p, log_q = logits.log_softmax(-1), (logits / 2).log_softmax(-1)
            sums += float((log_p.exp() * (log_p - log_q)).sum())
            tokens += len(logits)
        assert evaluator.evaluate(flatter).kl_to_dense == pytest.approx(sums / tokens, rel=1e-4)

    def test_fidelity_is_the_mean_over_tokens(self, loaded: LoadedModel) -> None:
        examples = loaded.task.encode(["a hen", "kaum", "Gummibaum"], [None] * 3, max_length=64)
        evaluator = QualityEvaluator(loaded.task, examples, batch=2, measure=QualityMeasure.FIDELITY)
        evaluator.set_dense(evaluator.run(_forward(loaded)))

        def flatter(inputs: Mapping[str, torch.Tensor], calls: int) -> torch.Tensor:
            return _forward(loaded)(inputs, calls) / 2

        expected = []
        for example in examples:
            logits = _forward(loaded)({k: v[None] for k, v in example.inputs.items()}, 1)[0].double()
            expected.append(float(torch.minimum(logits.softmax(-1), (logits / 2).softmax(-1)).sum(-1).mean()))
        assert evaluator.evaluate(flatter).per_example == pytest.approx(expected, rel=1e-4)

    def test_few_logits_are_kept_of_a_large_vocabulary(
        self, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        windows = loaded.task.cut(TEXT, max_length=32)
        assert windows is not None
        examples = loaded.task.encode(windows, [None] * len(windows), max_length=32)
        whole = QualityEvaluator(loaded.task, examples, batch=4)
        everything = whole.run(_forward(loaded))
        assert everything.logits_MC.shape == (32 * len(windows), 256)
        monkeypatch.setattr(passes, "_CHUNK_ELEMENTS", 1000)
        small = QualityEvaluator(loaded.task, examples, batch=4, kept_bytes=3 * 32 * 256 * 4)
        sampled = small.run(_forward(loaded))
        assert sampled.logits_MC.shape == (3 * 32, 256)
        torch.testing.assert_close(sampled.per_example_N, everything.per_example_N)
        rows = small.kept_rows(256).nonzero().flatten()
        expected = everything.logits_MC.view(len(windows), 32, 256)[rows].flatten(0, 1)
        torch.testing.assert_close(sampled.logits_MC, expected)
        tiny = QualityEvaluator(loaded.task, examples, batch=4, kept_bytes=1)
        assert tiny.run(_forward(loaded)).logits_MC.shape == (32, 256)

    def test_nan_reaches_the_score(self, loaded: LoadedModel) -> None:
        examples = loaded.task.encode(["a hen", "kaum"], [None] * 2, max_length=64)

        def broken(inputs: Mapping[str, torch.Tensor], calls: int) -> torch.Tensor:
            return _forward(loaded)(inputs, calls) * torch.nan

        assert math.isnan(QualityEvaluator(loaded.task, examples, batch=1).evaluate(broken).value)

    def test_chance_is_a_uniform_guess(self, loaded: LoadedModel) -> None:
        assert loaded.task.chance([]) == -8


class TestSeq2Seq:
    def test_targets_are_scored_by_transformers_loss(self) -> None:
        import tokenizers

        words = {"<pad>": 0, "</s>": 1, **{f"w{n}": n + 2 for n in range(40)}}
        core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<pad>"))
        core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        core.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")
        torch.manual_seed(0)
        config = transformers.T5Config(
            vocab_size=42, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
        model = transformers.T5ForConditionalGeneration(config).eval()
        task = TASKS.get("seq2seq-lm")(tokenizer, config)
        sources, targets = ["w1 w2 w3", "w4", "w5 w6"], ["w7", "w8 w9 w10 w11", "w12 w13"]
        examples = task.encode(sources, targets, max_length=16)
        with torch.no_grad():
            found = QualityEvaluator(task, examples, batch=3).evaluate(lambda inputs, _: model(**inputs).logits)
            for source, target, score in zip(sources, targets, found.per_example, strict=True):
                labels = tokenizer(target, return_tensors="pt").input_ids
                loss = model(input_ids=tokenizer(source, return_tensors="pt").input_ids, labels=labels).loss
                assert score == pytest.approx(-float(loss) / math.log(2), rel=1e-4)
        assert model(**task.random_inputs(2, 6, seed=0)).logits.shape == (2, 6, 42)

    def test_empty_targets_are_refused(self) -> None:
        config = transformers.T5Config(vocab_size=300, decoder_start_token_id=0)
        task = TASKS.get("seq2seq-lm")(None, config)
        with pytest.raises(TaskError, match="labels are texts that are not empty; got '' in row 0"):
            task.encode(["a"], [""], max_length=8)
        config.decoder_start_token_id = None
        with pytest.raises(TaskError, match="has no decoder_start_token_id"):
            task.encode(["a"], ["b"], max_length=8)


def _bits_on_wikitext(count: int) -> float:
    loaded = load_model(ModelConfig(id=str(GLM), task="causal-lm"))
    windows = loaded.task.cut(WIKITEXT.read_bytes().decode(), max_length=256)
    assert windows is not None
    examples = loaded.task.encode(windows[:count], [None] * count, max_length=256)
    return -QualityEvaluator(loaded.task, examples, batch=8).evaluate(_forward(loaded)).value


@needs_glm
def test_glm_tiny_needs_the_bits_of_a_naive_loop() -> None:
    loaded = load_model(ModelConfig(id=str(GLM), task="causal-lm"))
    data = WIKITEXT.read_bytes()
    windows = [list(data[start : start + 257]) for start in range(0, 20 * 256, 256)]
    expected = sum(_bits_by_transformers(loaded, window) for window in windows) / len(windows)
    assert _bits_on_wikitext(20) == pytest.approx(expected, rel=1e-5)


@needs_glm
@pytest.mark.slow
def test_glm_tiny_needs_the_bits_that_come_with_it() -> None:
    """Its folder names the bits on the first 256 KiB; on the whole file, 1.995, they agree as well, in minutes."""
    known = json.loads((GLM / "eval.json").read_text())["wikitext2_valid_first_256KiB"]["bits_per_byte"]
    assert _bits_on_wikitext(1024) == pytest.approx(known, abs=1e-4)
