"""Pruned units of tiny models: smaller matrices that compute what masks on the dense model compute."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from evaluators.quality import stack_calls
from evaluators.size import unit_bytes
from search_spaces.policy import Choice
from search_spaces.units import Unit, UnitKind
from workers.assemble import Assembler
from workers.calibrate import Moments, collect_moments
from workers.data import load_splits
from workers.model import LoadedModel, load_model
from workers.pruning import LayerWeights, PrunedUnit, PruningError, Saliency, prune_unit, removal_order
from workers.variants import Method, VariantMaker


@pytest.fixture(scope="module", params=["tiny_text", "tiny_image"])
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def loaded(job: Any) -> LoadedModel:
    return load_model(job.model)


@pytest.fixture(scope="module")
def inputs(job: Any, loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return loaded.task.collate(load_splits(job.data, loaded.task, seed=0).search[:16])


@pytest.fixture(scope="module")
def moments(job: Any, loaded: LoadedModel) -> Mapping[str, Moments]:
    examples = load_splits(job.data, loaded.task, seed=0).calibration
    return collect_moments(loaded.model, loaded.structure.units, stack_calls(loaded.task, examples, batch=1))


def _pruned_units(loaded: LoadedModel) -> list[Unit]:
    """All units but tables of embeddings, which are always whole."""
    return [unit for unit in loaded.structure.units if unit.kind is not UnitKind.EMBEDDING]


def _layers(loaded: LoadedModel, unit: Unit) -> dict[str, LayerWeights]:
    modules = {name: loaded.model.get_submodule(name) for name in unit.layers}
    return {name: LayerWeights(weight_OK=m.weight, bias_O=m.bias) for name, m in modules.items()}


def _logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**inputs).logits


def _blind_assembler(job: Any) -> Assembler:
    loaded = load_model(job.model)
    method = Method(saliency=Saliency.MAGNITUDE_L2, update=False, gptq=False)
    maker = VariantMaker(loaded.model, loaded.structure.units, None, method)
    return Assembler(loaded.model, loaded.structure, maker.make)


def _dense_policy(loaded: LoadedModel) -> Any:
    from search_spaces.policy import Policy

    return Policy({u.name: Choice(u.groups, "fp32") for u in loaded.structure.units})


def test_keeping_all_changes_nothing(loaded: LoadedModel, moments: Mapping[str, Moments]) -> None:
    for unit in _pruned_units(loaded):
        layers = _layers(loaded, unit)
        order = removal_order(unit, layers, moments[unit.consumer])
        pruned = prune_unit(unit, layers, order, unit.groups, moments[unit.consumer])
        assert pruned.kept == tuple(range(unit.groups))
        for name, layer in layers.items():
            assert pruned.layers[name].weight_OK.equal(layer.weight_OK)


@pytest.mark.parametrize("keep_ratio", [0.25, 0.5, 0.75])
def test_pruned_model_without_update_equals_the_masked_one(
    job: Any, loaded: LoadedModel, inputs: dict[str, torch.Tensor], keep_ratio: float
) -> None:
    assembler = _blind_assembler(job)
    for unit in _pruned_units(loaded):
        keep = round(unit.groups * keep_ratio)
        pruned_logits = _logits(
            assembler.apply(_dense_policy(loaded).replace(**{unit.name: Choice(keep, "fp32")})), inputs
        )
        order = removal_order(unit, _layers(loaded, unit), None, saliency=Saliency.MAGNITUDE_L2)
        consumer = loaded.model.get_submodule(unit.consumer)
        dense = consumer.weight.clone()
        for group in order[: unit.groups - keep]:
            start = group * unit.columns_per_group
            consumer.weight[:, start : start + unit.columns_per_group] = 0
        masked = _logits(loaded.model, inputs)
        consumer.weight.copy_(dense)
        torch.testing.assert_close(pruned_logits, masked, rtol=0, atol=1e-4)
        assert not torch.allclose(masked, _logits(loaded.model, inputs), atol=1e-3)


def test_matrices_are_smaller_and_counted_exactly(loaded: LoadedModel, moments: Mapping[str, Moments]) -> None:
    for unit in _pruned_units(loaded):
        layers = _layers(loaded, unit)
        order = removal_order(unit, layers, moments[unit.consumer])
        for keep in range(0, unit.groups, max(1, unit.groups // 8)):
            pruned = prune_unit(unit, layers, order, keep, moments[unit.consumer])
            shapes = {name: (out, width) for name, out, width in unit.layer_shapes(keep)}
            parameters = 0
            for name, layer in pruned.layers.items():
                assert tuple(layer.weight_OK.shape) == shapes[name]
                assert layer.bias_O is not None
                parameters += layer.weight_OK.numel() + layer.bias_O.numel()
            assert 4 * parameters == unit_bytes(unit, Choice(keep, "fp32"))
            assert pruned.layers.keys() == ({unit.consumer} if keep == 0 else set(unit.layers))


def test_choices_are_nested(loaded: LoadedModel, moments: Mapping[str, Moments]) -> None:
    for unit in _pruned_units(loaded):
        layers = _layers(loaded, unit)
        order = removal_order(unit, layers, moments[unit.consumer])
        assert sorted(order) == list(range(unit.groups))
        kept = [
            set(prune_unit(unit, layers, order, keep, moments[unit.consumer]).kept) for keep in range(unit.groups + 1)
        ]
        assert all(fewer < more for fewer, more in itertools.pairwise(kept))


def _branch_error(loaded: LoadedModel, unit: Unit, pruned: PrunedUnit, gram_KK: torch.Tensor) -> float:
    """Squared error of the consumer's output over the calibration tokens, bias included."""
    dense = loaded.model.get_submodule(unit.consumer)
    columns = [g * unit.columns_per_group + c for g in pruned.kept for c in range(unit.columns_per_group)]
    layer = pruned.layers[unit.consumer]
    difference = torch.cat([dense.weight, dense.bias[:, None]], 1).double()
    difference[:, columns] -= layer.weight_OK.double()
    difference[:, -1] -= layer.bias_O.double()
    return float(((difference @ gram_KK) * difference).sum())


def test_update_lowers_the_error_and_the_hessian_order_lowers_it_further(
    loaded: LoadedModel, moments: Mapping[str, Moments]
) -> None:
    errors = {"cut": 0.0, "solved": 0.0, "hessian": 0.0}
    for unit in _pruned_units(loaded):
        layers, seen = _layers(loaded, unit), moments[unit.consumer]
        magnitude = removal_order(unit, layers, seen, saliency=Saliency.MAGNITUDE_L2)
        keep = unit.groups // 2
        cut = prune_unit(unit, layers, magnitude, keep, None)
        solved = prune_unit(unit, layers, magnitude, keep, seen)
        best = prune_unit(unit, layers, removal_order(unit, layers, seen), keep, seen)
        for name, pruned in (("cut", cut), ("solved", solved), ("hessian", best)):
            errors[name] += _branch_error(loaded, unit, pruned, seen.gram_KK)
    assert errors["hessian"] < errors["solved"] < errors["cut"]


def test_nothing_kept_leaves_the_mean_of_the_branch(loaded: LoadedModel, moments: Mapping[str, Moments]) -> None:
    for unit in _pruned_units(loaded):
        layers, seen = _layers(loaded, unit), moments[unit.consumer]
        pruned = prune_unit(unit, layers, tuple(range(unit.groups)), 0, seen)
        consumer = loaded.model.get_submodule(unit.consumer)
        mean = consumer(seen.mean_K.float())
        # The ridge draws the constant slightly towards the old bias.
        torch.testing.assert_close(pruned.layers[unit.consumer].bias_O, mean, rtol=2e-2, atol=2e-2)
        assert pruned.kept == ()


def _toy_unit(groups: int, size: int, in_features: int = 4, out_features: int = 3) -> Unit:
    from search_spaces.units import Branch, Producer

    return Unit(
        name="toy",
        kind=UnitKind.FEED_FORWARD,
        groups=groups,
        producers=(Producer(layer="up", rows_per_group=size),),
        consumer="down",
        columns_per_group=size,
        in_features=in_features,
        out_features=out_features,
        branch=Branch(module="block"),
        activation="gelu",
    )


def _toy_layers(unit: Unit, *, bias: bool = True) -> dict[str, LayerWeights]:
    generator = torch.Generator().manual_seed(0)
    width = unit.groups * unit.columns_per_group

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "up": LayerWeights(weight_OK=draw(width, unit.in_features), bias_O=draw(width) if bias else None),
        "down": LayerWeights(
            weight_OK=draw(unit.out_features, width), bias_O=draw(unit.out_features) if bias else None
        ),
    }


def _toy_moments(inputs_TK: torch.Tensor) -> Moments:
    augmented = torch.cat([inputs_TK, torch.ones(len(inputs_TK), 1)], 1).double()
    return Moments(gram_FKK=torch.stack([augmented[f::2].T @ augmented[f::2] for f in range(2)]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "inputs_TK",
    [
        pytest.param(torch.zeros(30, 12), id="dead"),
        pytest.param(
            torch.randn(30, 12, generator=torch.Generator().manual_seed(0)) * (torch.arange(12) > 5), id="half dead"
        ),
        pytest.param(torch.full((30, 12), 2.5), id="constant"),
        pytest.param(torch.randn(3, 12, generator=torch.Generator().manual_seed(0)), id="few tokens"),
        pytest.param(torch.randn(1, 12, generator=torch.Generator().manual_seed(0)), id="one token"),
        pytest.param(
            torch.randn(30, 1, generator=torch.Generator().manual_seed(0)).expand(30, 12) * 1e4, id="rank one"
        ),
    ],
)
def test_degenerate_inputs_give_finite_layers(inputs_TK: torch.Tensor, bias: bool) -> None:
    unit = _toy_unit(groups=6, size=2)
    layers, moments = _toy_layers(unit, bias=bias), _toy_moments(inputs_TK)
    order = removal_order(unit, layers, moments)
    assert sorted(order) == list(range(6))
    for keep in range(6):
        for layer in prune_unit(unit, layers, order, keep, moments).layers.values():
            assert bool(layer.weight_OK.isfinite().all())
            assert (layer.bias_O is not None) == bias
            assert layer.bias_O is None or bool(layer.bias_O.isfinite().all())


def test_dead_channels_go_first() -> None:
    unit = _toy_unit(groups=8, size=1)
    inputs = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    inputs[:, [1, 4, 6]] = 0
    order = removal_order(unit, _toy_layers(unit), _toy_moments(inputs))
    assert set(order[:3]) == {1, 4, 6}


def test_duplicate_channels_are_made_up_for() -> None:
    unit = _toy_unit(groups=6, size=1)
    inputs = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).repeat(1, 2)
    layers, moments = _toy_layers(unit), _toy_moments(inputs)
    pruned = prune_unit(unit, layers, removal_order(unit, layers, moments), 3, moments)
    down, solved = layers["down"], pruned.layers["down"]
    expected = inputs @ down.weight_OK.T + down.bias_O
    torch.testing.assert_close(
        inputs[:, list(pruned.kept)] @ solved.weight_OK.T + solved.bias_O, expected, atol=1e-3, rtol=1e-3
    )


def test_magnitude_order_by_hand() -> None:
    unit = _toy_unit(groups=3, size=1, in_features=1, out_features=1)
    layers = {
        "up": LayerWeights(weight_OK=torch.tensor([[1.0], [0.0], [3.0]]), bias_O=None),
        "down": LayerWeights(weight_OK=torch.tensor([[1.0, 1.2, 0.0]]), bias_O=None),
    }
    assert removal_order(unit, layers, None, saliency=Saliency.MAGNITUDE_L2) == (1, 0, 2)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(("layer", "part"), [("up", "weight_OK"), ("down", "weight_OK"), ("down", "bias_O")])
@pytest.mark.parametrize("keep", [2, 6])
def test_weights_that_are_not_finite_name_layer_and_unit(value: float, layer: str, part: str, keep: int) -> None:
    unit = _toy_unit(groups=6, size=2)
    layers = _toy_layers(unit)
    getattr(layers[layer], part)[0] = value
    moments = _toy_moments(torch.randn(30, 12))
    with pytest.raises(PruningError, match=rf"NaN or infinity in {layer} \(unit toy\)"):
        removal_order(unit, layers, moments)
    with pytest.raises(PruningError, match=rf"NaN or infinity in {layer} \(unit toy\)"):
        prune_unit(unit, layers, tuple(range(6)), keep, moments)
