"""Every architecture, mixed, pruned and with branches left out: to a folder and back exactly, and to ONNX."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from tiny_families import CONVOLUTIONAL, FAMILIES
from torch import Tensor, nn

import paretrim
from evaluators.quality import StackedCalls
from evaluators.tasks import TASKS
from search_spaces.architectures import ARCHITECTURES, structure_of
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, Unit, UnitKind
from workers.assemble import Assembler
from workers.calibrate import Calibration
from workers.export.compare import layer_differences
from workers.export.huggingface import export_huggingface
from workers.export.onnx import export_onnx
from workers.model import forgo_cache
from workers.targets.onnxruntime_cpu import open_session
from workers.variants import Method, VariantMaker

_TASKS = {
    "SequenceClassification": "text-classification",
    "ImageClassification": "image-classification",
    "ConditionalGeneration": "seq2seq-lm",
    "CausalLM": "causal-lm",
    "SentenceEmbedding": "sentence-similarity",
}


@dataclass
class Case:
    """A tiny model with random weights throughout, its units and the assembler that makes it any policy's."""

    name: str
    model: Any = field(init=False)
    structure: ModelStructure = field(init=False)
    assembler: Assembler = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = FAMILIES[self.name]().eval().requires_grad_(False)
        self.model.set_attn_implementation("eager")
        forgo_cache(self.model)
        for parameter in self.model.parameters():
            scale = 0.15 if parameter.ndim < 4 else (2 / parameter[0].numel()) ** 0.5
            parameter.add_(torch.randn_like(parameter) * scale)
        self.structure = structure_of(self.model)
        calibration = None
        if self.name in CONVOLUTIONAL:
            call = StackedCalls(inputs=self.inputs(8), examples_per_call=1, rows=tuple(range(8)))
            calibration = Calibration(self.structure.units, [call], lambda: self.model)
        maker = VariantMaker(
            self.model, self.structure.units, calibration, Method(saliency="magnitude_l2", update=False, gptq=False)
        )
        if calibration is not None:
            for unit in self.structure.units:
                maker.make(unit, Choice(unit.groups, "w8a8s"))
        self.assembler = Assembler(self.model, self.structure, maker.make)

    @property
    def task(self) -> Any:
        return TASKS.get(next(task for part, task in _TASKS.items() if part in type(self.model).__name__))

    def inputs(self, batch: int = 2, *, tokens: int = 9, padding: int = 0) -> dict[str, Tensor]:
        """Random inputs; the first example of them padded."""
        generator = torch.Generator().manual_seed(batch)
        if "pixel_values" in self.task.dynamic_axes:
            return {"pixel_values": torch.randn(batch, 3, 24, 24, generator=generator)}
        ids = torch.randint(2, 50, (batch, tokens), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, tokens - padding :] = 0
        found = {"input_ids": ids, "attention_mask": mask}
        if self.model.config.is_encoder_decoder:
            decoder = torch.randint(2, 50, (batch, tokens - 2), generator=generator)
            found |= {"decoder_input_ids": decoder, "decoder_attention_mask": torch.ones_like(decoder)}
        return found

    def policy(self, choose: Callable[[Unit], tuple[int, str]]) -> Policy:
        choices = {unit.name: Choice(*choose(unit)) for unit in self.structure.units}
        return Policy({name: c if c.keep else Choice(0, "fp32") for name, c in choices.items()})

    def mixed(self, seed: int) -> Policy:
        """Formats and keeps at random, one branch at least left out."""
        generator = random.Random(seed)
        gone = generator.choice([unit.name for unit in self.structure.units if unit.branch is not None] or [""])
        names = [name for name in FORMATS if name in ("fp32", "w8a8", "w4", "w4g128", "w8", "w8a8s")]

        def choose(unit: Unit) -> tuple[int, str]:
            formats = [name for name in names if unit.layer_type in FORMATS.get(name).layer_types]
            keep = unit.groups
            if unit.kind is not UnitKind.EMBEDDING:
                keep = 0 if unit.name == gone else max(1, round(unit.groups * generator.choice([0.4, 0.7, 1.0])))
            return keep, generator.choice(formats)

        return self.policy(choose)

    @property
    def dense(self) -> Policy:
        return self.policy(lambda unit: (unit.groups, "fp32"))

    def logits(self, policy: Policy, **inputs: Tensor) -> Tensor:
        return logits(self.assembler.apply(policy), **inputs)


def logits(model: nn.Module, **inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(**inputs).logits
    return found


@pytest.fixture(scope="module", params=list(FAMILIES))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    return Case(request.param)


def test_no_architecture_is_left_out() -> None:
    assert {FAMILIES[name]().config.model_type for name in FAMILIES} == set(ARCHITECTURES)


class TestFolder:
    @pytest.mark.parametrize("seed", range(2))
    def test_loads_exactly_what_was_searched(self, case: Case, tmp_path: Path, seed: int) -> None:
        policy, inputs = case.mixed(seed), case.inputs(3, padding=4)
        searched = case.logits(policy, **inputs)
        assert searched.isfinite().all()
        export_huggingface(case.model, policy, tmp_path)
        loaded = paretrim.load(tmp_path)
        assert logits(loaded, **inputs).equal(searched)
        assert not any(module.training for module in loaded.modules())
        assert not any(parameter.requires_grad for parameter in loaded.parameters())

    @pytest.mark.parametrize("kind", [None, UnitKind.FEED_FORWARD, UnitKind.ATTENTION])
    def test_transformers_loads_it_where_all_layers_agree(
        self, case: Case, tmp_path: Path, kind: UnitKind | None
    ) -> None:
        if kind is not None and not any(unit.kind is kind for unit in case.structure.units):
            pytest.skip("no such units")
        inputs = case.inputs()
        policy = case.policy(lambda unit: (unit.groups // 2 if unit.kind is kind else unit.groups, "fp32"))
        searched = case.logits(policy, **inputs)
        summary = export_huggingface(case.model, policy, tmp_path)
        by_heads = getattr(case.model.config, "num_key_value_heads", None) is not None
        assert summary.plain == (case.name not in CONVOLUTIONAL and (kind is not UnitKind.ATTENTION or by_heads))
        assert logits(paretrim.load(tmp_path), **inputs).equal(searched)
        if not summary.plain:
            with pytest.raises(OSError, match=r"model\.safetensors"):
                type(case.model).from_pretrained(tmp_path)
            return
        plain, loading = type(case.model).from_pretrained(
            tmp_path, attn_implementation="eager", output_loading_info=True
        )
        assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert logits(plain, **inputs).equal(searched)


@pytest.mark.slow
class TestOnnx:
    """Traced with two examples of nine tokens, run with three of another length, one of them padded."""

    def test_computes_what_was_searched(self, case: Case, tmp_path: Path) -> None:
        found, searched, worst = _exported(case, case.mixed(1), tmp_path / "model.onnx")
        assert torch.cosine_similarity(found.flatten(), searched.flatten(), dim=0) >= 0.995
        assert worst < 0.1

    @pytest.mark.parametrize("case", ["bert", "vit", "llama", "glm4", "t5", "mobilenet_v2"], indirect=True)
    def test_is_equal_where_nothing_is_quantized(self, case: Case, tmp_path: Path) -> None:
        pruned = case.mixed(1)
        policy = Policy({name: Choice(choice.keep, "fp32") for name, choice in pruned.choices.items()})
        found, searched, worst = _exported(case, policy, tmp_path / "model.onnx")
        torch.testing.assert_close(found, searched, rtol=0, atol=1e-4)
        assert worst < 1e-4


def _exported(case: Case, policy: Policy, path: Path) -> tuple[Tensor, Tensor, float]:
    """Logits of the file and of the model, and the largest relative error of a unit."""
    model = case.assembler.apply(policy)
    export_onnx(model, case.task, case.inputs(), path)
    inputs = case.inputs(3, tokens=7, padding=3)
    session = open_session(path, threads=1)
    assert {node.name for node in session.get_inputs()} == inputs.keys()
    assert onnx.load(path).opset_import[0].version == 20
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    differences = layer_differences(path, model, case.structure, inputs)
    there = {unit.name for unit in case.structure.units if unit.producers and policy[unit.name].keep}
    assert {difference.unit for difference in differences} >= there
    return torch.from_numpy(found), logits(model, **inputs), max(d.relative_error for d in differences)
