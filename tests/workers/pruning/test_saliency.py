"""Scores by hand and by loops, and what every order has in common."""

import itertools

import pytest
import torch
from torch import Tensor

from search_spaces.units import Branch, Producer, Unit, UnitKind
from workers.calibrate import Moments
from workers.pruning import LayerWeights, PruningError, Saliency, prune_unit, removal_order
from workers.pruning.hessian_ops import damped_cholesky, greedy_removal, output_root
from workers.pruning.saliency import activation_scores, magnitude_scores

UNIT = Unit(
    name="toy",
    kind=UnitKind.FEED_FORWARD,
    groups=6,
    producers=(Producer(layer="up", rows_per_group=2, blocks=2), Producer(layer="side", rows_per_group=1)),
    consumer="down",
    columns_per_group=3,
    in_features=4,
    out_features=5,
    branch=Branch(module="block"),
    activation="gelu",
)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _layers(dtype: torch.dtype = torch.float32) -> dict[str, LayerWeights]:
    return {
        "up": LayerWeights(weight_OK=_draw(24, 4).to(dtype), bias_O=_draw(24).to(dtype)),
        "side": LayerWeights(weight_OK=_draw(6, 4, seed=1).to(dtype), bias_O=None),
        "down": LayerWeights(weight_OK=_draw(5, 18, seed=2).to(dtype), bias_O=_draw(5, seed=3).to(dtype)),
    }


def _moments(tokens: int = 200, seed: int = 4) -> Moments:
    inputs = torch.cat([_draw(tokens, 18, seed=seed) @ _draw(18, 18, seed=5), torch.ones(tokens, 1)], 1).double()
    return Moments(gram_FKK=torch.stack([inputs[fold::2].T @ inputs[fold::2] for fold in range(2)]))


def _order(saliency: Saliency, **fields: object) -> tuple[int, ...]:
    return removal_order(UNIT, _layers(), _moments(), saliency=saliency, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [1, 2])
def test_magnitude_by_loops(power: int) -> None:
    layers, expected = _layers(), []
    for group in range(6):
        rows = [2 * group, 2 * group + 1, 12 + 2 * group, 12 + 2 * group + 1]
        weights = [layers["up"].weight_OK[row] for row in rows] + [layers["side"].weight_OK[group]]
        weights += [layers["down"].weight_OK[:, 3 * group + column] for column in range(3)]
        expected.append(sum(abs(float(w)) ** power for part in weights for w in part))
    torch.testing.assert_close(magnitude_scores(UNIT, layers, power=power).tolist(), expected, rtol=1e-6, atol=0)


def test_activation_by_loops() -> None:
    weight, inputs = _draw(5, 18), _draw(40, 18, seed=1).double()
    expected = []
    for group in range(6):
        columns = range(3 * group, 3 * group + 3)
        expected.append(sum(float((inputs[:, k] ** 2).sum() * (weight[:, k].double() ** 2).sum()) for k in columns))
    found = activation_scores(weight, inputs.T @ inputs, groups=6)
    torch.testing.assert_close(found.tolist(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("saliency", list(Saliency))
def test_every_order_is_whole_and_nested(saliency: Saliency) -> None:
    moments = _moments()
    order = _order(saliency, taylor_G=torch.arange(6.0))
    assert sorted(order) == list(range(6))
    kept = [set(prune_unit(UNIT, _layers(), order, keep, moments).kept) for keep in range(7)]
    assert all(fewer < more for fewer, more in itertools.pairwise(kept))


def test_taylor_takes_the_least_first() -> None:
    assert _order(Saliency.TAYLOR, taylor_G=torch.tensor([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])) == (1, 2, 0, 5, 4, 3)


@pytest.mark.parametrize("saliency", [Saliency.HESSIAN, Saliency.ACTIVATION, Saliency.TAYLOR])
def test_without_data_an_order_that_needs_it_is_refused(saliency: Saliency) -> None:
    with pytest.raises(PruningError, match=rf"'{saliency.value}' looks at calibration data; got none \(unit toy\)"):
        removal_order(UNIT, _layers(), None, saliency=saliency)


def test_directions_that_do_not_matter_do_not_count() -> None:
    """Only the first output matters: the order is that of the first row alone."""
    layers, moments = _layers(), _moments()
    fisher = torch.zeros(5, 5, dtype=torch.float64)
    fisher[0, 0] = 5
    weighed = removal_order(UNIT, layers, moments, fisher_OO=fisher)
    full = torch.cat([layers["down"].weight_OK, layers["down"].bias_O[:, None]], 1).double()
    full[1:] *= (0.1 / (0.1 + 0.9 * 5)) ** 0.5
    groups = list(torch.arange(18).view(6, 3))
    assert list(weighed) == greedy_removal(full, moments.gram_KK, groups, ridge=1e-4)
    assert weighed != removal_order(UNIT, layers, moments)


def test_equal_directions_leave_the_order_as_it_is() -> None:
    fisher = torch.eye(5, dtype=torch.float64)
    assert _order(Saliency.HESSIAN, fisher_OO=fisher) == _order(Saliency.HESSIAN)


def test_output_root_is_a_root() -> None:
    factor = _draw(5, 3).double()
    fisher = factor @ factor.T
    root = output_root(fisher)
    torch.testing.assert_close(root.T @ root, 0.9 * fisher + 0.1 * torch.eye(5, dtype=torch.float64))


def test_cholesky_of_sums_that_rounding_made_indefinite() -> None:
    """One input is a million times the others, and a copy of it: float32 sums are off by more than the damping."""
    inputs = _draw(300, 20)
    inputs[:, 0] *= 1e6
    inputs[:, 1] = inputs[:, 0]
    gram = (inputs.T @ inputs).double()
    gram[0, 1] = gram[1, 0] = gram[0, 1] * (1 + 1e-6)
    assert float(torch.linalg.eigvalsh(gram).min()) < 0
    factor = damped_cholesky(gram, 1.0)
    assert bool(factor.isfinite().all())
    added = (factor @ factor.T - gram).diagonal()
    assert 1 <= float(added.mean()) < 1e10


class TestHalfPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_layers_keep_their_type(self, dtype: torch.dtype) -> None:
        layers, moments = _layers(dtype), _moments()
        pruned = prune_unit(UNIT, layers, removal_order(UNIT, layers, moments), 3, moments)
        exact = prune_unit(UNIT, _layers(), removal_order(UNIT, layers, moments), 3, moments)
        for name, layer in pruned.layers.items():
            assert layer.weight_OK.dtype == dtype
            difference = (layer.weight_OK.float() - exact.layers[name].weight_OK).norm()
            assert float(difference / exact.layers[name].weight_OK.norm()) < 0.02

    def test_infinities_name_layer_and_unit(self) -> None:
        layers = _layers(torch.float16)
        layers["side"].weight_OK[2, 1] = 70_000
        with pytest.raises(PruningError, match=r"NaN or infinity in side \(unit toy\)"):
            removal_order(UNIT, layers, _moments())

    def test_solutions_that_do_not_fit_name_layer_and_unit(self) -> None:
        """What is left of the inputs is so small that it takes weights beyond float16 to make up for the rest."""
        layers = _layers(torch.float16)
        layers["down"].weight_OK[:] = 60_000
        inputs = _draw(400, 1).expand(400, 18).clone().double()
        inputs[:, 9:] *= 0.2
        augmented = torch.cat([inputs, torch.ones(400, 1).double()], 1)
        moments = Moments(gram_FKK=torch.stack([augmented[fold::2].T @ augmented[fold::2] for fold in range(2)]))
        with pytest.raises(PruningError, match=r"fit into torch.float16; got infinity in down \(unit toy\)"):
            prune_unit(UNIT, layers, (0, 1, 2, 3, 4, 5), 3, moments)
