"""GPTQ against round to nearest, and against a plain implementation of optimal brain quantization's update."""

import pytest
import torch

from search_spaces.formats import FORMATS, Format
from workers.quantization.codes import fit_grid, round_to_nearest
from workers.quantization.gptq import DAMPING, gptq

W3 = Format(name="w3", weight_bits=3, group_size=32, symmetric=False)
TARGETS = [FORMATS.get("w8a8"), FORMATS.get("w4"), FORMATS.get("w4g128"), W3]


def _problem(tokens: int, features: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the Gram matrix of inputs that share a few directions."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(tokens, 6, generator=generator, dtype=torch.float64)
    mixing = torch.randn(6, features, generator=generator, dtype=torch.float64)
    x = shared @ mixing + 0.3 * torch.randn(tokens, features, generator=generator, dtype=torch.float64)
    return torch.randn(12, features, generator=generator), x.T @ x


def _error(weight: torch.Tensor, rounded: torch.Tensor, gram: torch.Tensor) -> float:
    difference = (weight - rounded).double()
    return float(((difference @ gram) * difference).sum())


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("seed", range(4))
def test_output_error_is_below_that_of_rounding_to_nearest(target: Format, seed: int) -> None:
    weight, gram = _problem(400, 72, seed)
    gptq_error = _error(weight, gptq(weight, gram, target).dequantize(), gram)
    nearest_error = _error(weight, round_to_nearest(weight, target).dequantize(), gram)
    assert gptq_error < 0.9 * nearest_error


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_uncorrelated_inputs_leave_nothing_to_make_up_for(target: Format) -> None:
    weight, _ = _problem(10, 200, 0)
    gram = torch.diag(torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1)
    found, nearest = gptq(weight, gram, target), round_to_nearest(weight, target)
    assert found.codes_OK.equal(nearest.codes_OK)
    assert found.scale_ON.equal(nearest.scale_ON)


def _naive(weight: torch.Tensor, gram: torch.Tensor, target: Format) -> torch.Tensor:
    """Column by column, the inverse of what is left computed anew each time (OBQ in a fixed order)."""
    features = weight.shape[1]
    damped = gram + DAMPING * float(gram.diagonal().mean()) * torch.eye(features, dtype=gram.dtype)
    work, found = weight.double().clone(), torch.empty_like(weight)
    block = target.group_size or features
    for column in range(features):
        if column % block == 0:
            grid = fit_grid(work[:, column : column + block], target)
        found[:, column] = grid.values(grid.codes(work[:, column]))
        inverse = torch.linalg.inv(damped[column:, column:])
        error = (work[:, column] - found[:, column].double()) / inverse[0, 0]
        work[:, column:] -= torch.outer(error, inverse[0])
    return found


@pytest.mark.parametrize("target", [FORMATS.get("w8a8"), FORMATS.get("w4")], ids=lambda t: t.name)
@pytest.mark.parametrize("features", [40, 150])
def test_weights_are_those_of_the_plain_algorithm(target: Format, features: int) -> None:
    weight, gram = _problem(600, features, 5)
    found, naive = gptq(weight, gram, target).dequantize(), _naive(weight, gram, target)
    # Another order of sums may flip a code that lies on an edge.
    assert float((found - naive).abs().gt(1e-4).float().mean()) < 0.01


@pytest.mark.parametrize(
    "gram",
    [
        pytest.param(torch.zeros(40, 40, dtype=torch.float64), id="dead"),
        pytest.param(torch.ones(40, 40, dtype=torch.float64), id="constant"),
        pytest.param(torch.diag((torch.arange(40) > 20).double()), id="half dead"),
        pytest.param(torch.diag(torch.logspace(-12, 12, 40, dtype=torch.float64)), id="wide range"),
    ],
)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_degenerate_inputs_give_finite_weights(gram: torch.Tensor, target: Format) -> None:
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    codes = gptq(weight, gram, target)
    assert bool(codes.dequantize().isfinite().all())
    assert bool((codes.scale_ON > 0).all())


def test_weight_is_left_as_it_is() -> None:
    weight, gram = _problem(100, 40, 0)
    before = weight.clone()
    gptq(weight, gram, FORMATS.get("w4"))
    assert weight.equal(before)
