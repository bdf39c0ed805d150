"""Assembly: any policy from one skeleton, in any order."""

import copy
import random
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from torch import nn

from search_spaces.architectures import structure_of
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from search_spaces.units import Unit, UnitKind
from workers.assemble import Assembler
from workers.data import load_splits
from workers.model import LoadedModel, load_model
from workers.quantization.linear import BlockInt4Linear, ConstantBranch, DynamicInt8Linear
from workers.variants import Method, Variant, VariantMaker


@pytest.fixture(scope="module", params=["tiny_text", "tiny_image"])
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def loaded(job: Any) -> LoadedModel:
    return load_model(job.model)


@pytest.fixture
def space(loaded: LoadedModel) -> SearchSpace:
    formats = ("fp32", "w8a8", "w4", "w4g128")
    return build_space(loaded.structure, SpaceConfig(), target_formats=formats, channel_multiple=8)


@pytest.fixture
def inputs(job: Any, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return loaded.task.collate(load_splits(job.data, loaded.task, seed=0).search[:4])


def _assembler(loaded: LoadedModel) -> Assembler:
    maker = VariantMaker(loaded.model, loaded.structure.units, None)
    return Assembler(loaded.model, loaded.structure, maker.make)


def _logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**inputs).logits


def test_dense_policy_is_the_model_as_it_came(loaded: LoadedModel, space: SearchSpace, inputs: Any) -> None:
    before, modules = _logits(loaded.model, inputs), dict(loaded.model.named_modules())
    assembler = _assembler(loaded)
    assembler.apply(space.smallest_policy())
    assert not _logits(loaded.model, inputs).allclose(before)
    assert assembler.apply(space.dense_policy()) is loaded.model
    assert _logits(loaded.model, inputs).equal(before)
    after = dict(loaded.model.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[name] is modules[name] for name in modules)


def test_order_of_policies_does_not_matter(job: Any, loaded: LoadedModel, space: SearchSpace, inputs: Any) -> None:
    generator = random.Random(3)
    policies = [space.random_policy(generator) for _ in range(8)]
    assembler = _assembler(loaded)
    found = {policy: _logits(assembler.apply(policy), inputs) for policy in policies}
    for policy in generator.sample(policies, 4):
        fresh = _assembler(load_model(job.model))
        assert _logits(fresh.apply(policy), inputs).equal(found[policy])
        assert _logits(assembler.apply(policy), inputs).equal(found[policy])


@pytest.mark.parametrize("format_name", ["fp32", "w8a8", "w4"])
def test_every_keep_of_every_unit_runs(loaded: LoadedModel, space: SearchSpace, inputs: Any, format_name: str) -> None:
    assembler = _assembler(loaded)
    for unit_space in space.unit_spaces:
        unit = unit_space.unit
        if unit.branch is None:
            continue
        for keep in unit_space.keeps:
            policy = space.dense_policy().replace(**{unit.name: Choice(keep, format_name if keep else "fp32")})
            model = assembler.apply(policy)
            assert bool(_logits(model, inputs).isfinite().all())
            if keep:
                assert isinstance(model.get_submodule(unit.consumer), _layer_type(format_name))


def _layer_type(name: str) -> type[nn.Module]:
    return {"fp32": nn.Linear, "w8a8": DynamicInt8Linear, "w4": BlockInt4Linear}[name]


def test_left_out_units_add_their_consumers_bias_only(loaded: LoadedModel, space: SearchSpace, inputs: Any) -> None:
    """With no data nothing is solved, so leaving a unit out is the dense model with that consumer's weight at zero."""
    assembler = _assembler(loaded)
    for unit in (unit for unit in loaded.structure.units if unit.branch is not None):
        left_out = _logits(assembler.apply(space.dense_policy().replace(**{unit.name: Choice(0, "fp32")})), inputs)
        assert any(isinstance(module, ConstantBranch) for module in loaded.model.modules())
        model = assembler.apply(space.dense_policy())
        consumer = model.get_submodule(unit.consumer)
        dense = consumer.weight.clone()
        consumer.weight.zero_()
        torch.testing.assert_close(left_out, _logits(model, inputs), rtol=1e-4, atol=1e-5)
        consumer.weight.copy_(dense)


def test_a_variant_is_asked_for_once(loaded: LoadedModel, space: SearchSpace) -> None:
    asked: list[tuple[str, Choice]] = []
    maker = VariantMaker(loaded.model, loaded.structure.units, None)

    def variant(unit: Unit, choice: Choice) -> Variant:
        asked.append((unit.name, choice))
        return maker.make(unit, choice)

    assembler = Assembler(loaded.model, loaded.structure, variant)
    dense, other = space.dense_policy(), space.uniform_policies()["keep 0.5, w8a8"]
    for policy in (dense, other, other, dense, other):
        assembler.apply(policy)
    assert asked == [(unit.name, other[unit.name]) for unit in loaded.structure.units if unit.producers]


def test_a_failing_variant_leaves_a_model_that_can_go_on(loaded: LoadedModel, space: SearchSpace, inputs: Any) -> None:
    maker, last = VariantMaker(loaded.model, loaded.structure.units, None), loaded.structure.units[-1].name
    before = _logits(loaded.model, inputs)

    def variant(unit: Unit, choice: Choice) -> Variant:
        if unit.name == last:
            raise MemoryError(unit.name)
        return maker.make(unit, choice)

    assembler = Assembler(loaded.model, loaded.structure, variant)
    policy: Policy = space.uniform_policies()["keep 0.5, fp32"]
    with pytest.raises(MemoryError, match=last):
        assembler.apply(policy)
    assert _logits(assembler.apply(space.dense_policy()), inputs).equal(before)


@pytest.mark.parametrize("family", ["bert", "vit", "llama", "t5, gated", "gemma2"])
@pytest.mark.parametrize("name", ["fp32", "bf16", "w8a8", "w8a8r", "fp8", "w4", "w4a16"])
def test_a_model_on_another_device_holds_nothing_of_the_cpu(family: str, name: str) -> None:
    # No numbers, but torch refuses to mix devices there as it does on a GPU.
    model = FAMILIES[family]().eval().requires_grad_(False)
    structure = structure_of(model)
    magnitudes = Method(saliency="magnitude_l2", update=False, gptq=False)
    maker = VariantMaker(model, structure.units, None, magnitudes)
    elsewhere = Assembler(copy.deepcopy(model).to("meta"), structure, maker.make)
    units = [unit for unit in structure.units if unit.kind is not UnitKind.EMBEDDING]
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in structure.units})
    halved = dense.replace(**{unit.name: Choice(unit.groups // 2, name) for unit in units})
    dropped = next(unit.name for unit in units if unit.branch is not None)
    assembled = elsewhere.apply(halved.replace(**{dropped: Choice(0, "fp32")}))
    elsewhere.scope.examples = 1
    inputs = {"input_ids": torch.zeros(2, 6, dtype=torch.long, device="meta")}
    if family == "vit":
        inputs = {"pixel_values": torch.zeros(2, 3, 24, 24, device="meta")}
    if family.startswith("t5"):
        inputs["decoder_input_ids"] = inputs["input_ids"]
    assert _logits(assembled, inputs).device.type == "meta"
    assert {tensor.device.type for tensor in (*assembled.parameters(), *assembled.buffers())} == {"meta"}
