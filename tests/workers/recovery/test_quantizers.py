"""Rounding with learned steps beside the paper's formulas, a weight at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.formats import FORMATS
from workers.quantization.codes import round_to_nearest
from workers.recovery.quantizers import CodeRange, codes_at_steps, round_to_learned_steps, straight_through


def _paper(weight: float, scale: float, zero: float, low: int, high: int) -> tuple[float, float, float]:
    """(value, slope by weight, slope by scale) as in equations 1 to 3, clamping where the rounded code is outside."""
    step = weight / scale
    code = round(step) + zero
    if code < low:
        return (low - zero) * scale, 0.0, low - zero
    if code > high:
        return (high - zero) * scale, 0.0, high - zero
    return round(step) * scale, 1.0, round(step) - step


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 4, 8]), st.booleans(), st.sampled_from([3, 8, 16]))
def test_values_and_gradients_are_the_papers(seed: int, bits: int, symmetric: bool, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = 3, 16
    blocks = math.ceil(columns / block)
    levels = 2**bits - 1
    low, high = (-(levels // 2), levels // 2) if symmetric else (0, levels)
    weight = torch.randn(rows, columns, generator=generator, requires_grad=True)
    scale = (torch.rand(rows, blocks, generator=generator) + 0.2).mul(2 / levels).requires_grad_()
    zeros = None if symmetric else torch.randint(0, levels + 1, (rows, blocks), generator=generator).float()
    upstream = torch.randn(rows, columns, generator=generator)
    found = round_to_learned_steps(weight, scale, zeros, CodeRange(low=low, high=high), block=block)
    found.backward(upstream)
    by_scale = torch.zeros(rows, blocks)
    for row in range(rows):
        for column in range(columns):
            zero = 0.0 if zeros is None else float(zeros[row, column // block])
            step_scale = float(scale[row, column // block].detach())
            value, by_weight, slope = _paper(float(weight[row, column].detach()), step_scale, zero, low, high)
            assert float(found[row, column].detach()) == pytest.approx(value, abs=1e-5)
            assert weight.grad is not None
            assert float(weight.grad[row, column]) == pytest.approx(by_weight * float(upstream[row, column]), abs=1e-5)
            by_scale[row, column // block] += slope * float(upstream[row, column])
    padded = block * blocks
    expected = by_scale / math.sqrt(padded / blocks * high)
    torch.testing.assert_close(scale.grad, expected, rtol=1e-3, atol=1e-3)


def test_the_gradient_of_a_scale_is_that_of_its_definition() -> None:
    """Where all weights are clamped the value is linear in the scale, so that a finite difference tells the slope."""
    weight, codes = torch.tensor([[5.0, -6.0, 7.0]]), CodeRange(low=-7, high=7)
    scale = torch.tensor([[0.1]], requires_grad=True)
    round_to_learned_steps(weight, scale, None, codes, block=3).sum().backward()
    with torch.no_grad():
        above, below = (
            round_to_learned_steps(weight, scale + change, None, codes, block=3).sum() for change in (1e-3, -1e-3)
        )
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(float(above - below) / 2e-3 / math.sqrt(3 * 7), rel=1e-3)


@pytest.mark.parametrize("name", ["w8a8", "w4", "w4g128", "fp8"])
def test_codes_stand_for_what_training_multiplies(name: str) -> None:
    target = FORMATS.get(name)
    weight = torch.randn(5, 72, generator=torch.Generator().manual_seed(0))
    codes = round_to_nearest(weight, target)
    zeros = None if codes.zeros_ON is None else codes.zeros_ON.float()
    found = CodeRange.of(target)
    value = round_to_learned_steps(weight, codes.scale_ON, zeros, found, block=codes.block)
    torch.testing.assert_close(value, codes.dequantize(), rtol=0, atol=1e-6)
    again = codes_at_steps(weight, codes.scale_ON, zeros, found, block=codes.block)
    assert again.equal(codes.codes_OK.float())


def test_straight_through_returns_what_was_rounded_to_the_bit() -> None:
    value = torch.randn(100, requires_grad=True)
    rounded = (value.detach() * 8).round() / 8
    found = straight_through(value, rounded)
    assert found.equal(rounded)
    found.backward(torch.arange(100.0))
    assert value.grad is not None
    assert value.grad.equal(torch.arange(100.0))
