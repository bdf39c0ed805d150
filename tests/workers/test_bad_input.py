"""Models and data that leave nothing to solve for: finite variants all the same, or a refusal that names the unit."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from evaluators.quality import stack_calls
from evaluators.tasks import Example
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import Unit, UnitKind
from workers.assemble import Assembler
from workers.calibrate import Calibration, CalibrationError
from workers.data import load_splits
from workers.model import LoadedModel, load_model
from workers.pruning import PruningError, Saliency
from workers.variants import Method, VariantMaker

LAYER = "bert.encoder.layer.1"


def _kill_channels(model: Any) -> None:
    """Half of the channels are 0 whatever comes in, and one head is."""
    up, value = model.get_submodule(f"{LAYER}.intermediate.dense"), model.get_submodule(f"{LAYER}.attention.self.value")
    up.weight[:32], up.bias[:32] = 0, 0
    value.weight[:8], value.bias[:8] = 0, 0


def _kill_all_channels(model: Any) -> None:
    up = model.get_submodule(f"{LAYER}.intermediate.dense")
    up.weight.zero_()
    up.bias.zero_()


def _make_input_constant(model: Any) -> None:
    model.get_submodule(f"{LAYER}.attention.output.LayerNorm").weight.zero_()


def _make_input_zero(model: Any) -> None:
    norm = model.get_submodule(f"{LAYER}.attention.output.LayerNorm")
    norm.weight.zero_()
    norm.bias.zero_()


def _make_input_uneven(model: Any) -> None:
    """One feature is far larger than the others, as in large language models."""
    model.get_submodule(f"{LAYER}.attention.output.LayerNorm").weight[3] = 1e6


CHANGES: Mapping[str, Callable[[Any], None]] = {
    "dead channels": _kill_channels,
    "all channels dead": _kill_all_channels,
    "constant input": _make_input_constant,
    "zero input": _make_input_zero,
    "one huge feature": _make_input_uneven,
    "few examples": lambda model: None,
}


@pytest.fixture(scope="module")
def examples(tiny_text: Any) -> Sequence[Example]:
    return load_splits(tiny_text.data, load_model(tiny_text.model).task, seed=0).calibration


def _maker(loaded: LoadedModel, examples: Sequence[Example], method: Method | None = None) -> VariantMaker:
    units, dense = loaded.structure.units, copy.deepcopy(loaded.model)
    calibration = Calibration(units, stack_calls(loaded.task, examples, batch=1), lambda: dense)
    return VariantMaker(loaded.model, units, calibration, method)


@pytest.mark.parametrize("saliency", [Saliency.HESSIAN, Saliency.TAYLOR, Saliency.ACTIVATION])
@pytest.mark.parametrize("change", CHANGES)
def test_every_choice_stays_finite(
    tiny_text: Any, examples: Sequence[Example], change: str, saliency: Saliency
) -> None:
    loaded = load_model(tiny_text.model)
    CHANGES[change](loaded.model)
    few = examples[:1] if change == "few examples" else examples
    maker = _maker(loaded, few, Method(saliency=saliency))
    assembler = Assembler(loaded.model, loaded.structure, maker.make)
    inputs = loaded.task.collate(examples)
    formats = [name for name in ("fp32", "w8a8", "w4", "w4g128") if name in FORMATS]
    for ratio in (1.0, 0.5, 0.25, 0.0):
        for name in formats if ratio else ("fp32",):
            policy = Policy({unit.name: _choice(unit, ratio, name) for unit in loaded.structure.units})
            for unit in loaded.structure.units:
                for tensor in maker.make(unit, policy[unit.name]).values():
                    assert bool(tensor.isfinite().all()), unit.name
            assembler.apply(policy)
            assert bool(assembler.logits(inputs, 1).isfinite().all())


def _choice(unit: Unit, ratio: float, name: str) -> Choice:
    if unit.kind is UnitKind.EMBEDDING:
        return Choice(unit.groups, "fp32")
    return Choice(round(ratio * unit.groups), name)


def test_dead_channels_cost_nothing(tiny_text: Any, examples: Sequence[Example]) -> None:
    """Half of the channels are dead, so that keeping the other half changes nothing."""
    loaded = load_model(tiny_text.model)
    _kill_channels(loaded.model)
    assembler = Assembler(loaded.model, loaded.structure, _maker(loaded, examples).make)
    inputs = loaded.task.collate(examples[:8])
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in loaded.structure.units})
    assembler.apply(dense)
    before = assembler.logits(inputs, 1)
    assembler.apply(
        dense.replace(**{"layer.1.feed_forward": Choice(32, "fp32"), "layer.1.attention": Choice(3, "fp32")})
    )
    torch.testing.assert_close(assembler.logits(inputs, 1), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_infinite_weights_in_half_precision_are_refused_with_the_unit(
    tiny_text: Any, examples: Sequence[Example], dtype: torch.dtype
) -> None:
    for unit in load_model(tiny_text.model).structure.units:
        loaded = load_model(tiny_text.model)
        loaded.model.get_submodule(unit.consumer).weight[1, 2] = float("inf")
        loaded.model.to(dtype)
        for maker in (_maker(loaded, examples), VariantMaker(loaded.model, loaded.structure.units, None)):
            with pytest.raises(PruningError, match=rf"{unit.consumer} \(unit {unit.name}\)"):
                maker.make(unit, _choice(unit, 1.0, "w8a8"))


def test_a_broken_unit_is_named_before_those_behind_it(tiny_text: Any, examples: Sequence[Example]) -> None:
    loaded = load_model(tiny_text.model)
    loaded.model.get_submodule(f"{LAYER}.output.dense").bias[0] = float("inf")
    with pytest.raises(PruningError, match=rf"{LAYER}.output.dense \(unit layer.1.feed_forward\)"):
        _maker(loaded, examples).make(loaded.structure.unit("layer.0.attention"), Choice(2, "fp32"))


def test_inputs_that_are_not_finite_are_refused_with_the_unit(tiny_text: Any, examples: Sequence[Example]) -> None:
    loaded = load_model(tiny_text.model)
    loaded.model.get_submodule("bert.encoder.layer.0.output.LayerNorm").weight[0] = float("nan")
    maker, units = _maker(loaded, examples), loaded.structure.units
    unit = next(unit for unit in units if unit.name == "layer.1.attention")
    with pytest.raises(CalibrationError, match=r"\(unit layer\.1\.attention\) must be finite; got NaN or infinity"):
        maker.make(unit, Choice(2, "w8a8"))
