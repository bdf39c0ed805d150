"""Codes against hand-made tables, and packing against plain integer arithmetic."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.formats import FORMATS
from workers.quantization.codes import fit_grid, pack_nibbles, round_to_nearest, unpack_nibbles

QUANTIZED = [name for name in FORMATS if FORMATS.get(name).is_quantized]
INTEGERS = [name for name in QUANTIZED if not FORMATS.get(name).is_float8]


def test_symmetric_codes_by_hand() -> None:
    weight = torch.tensor([[127.0, -63.6, 0.4, 1.0], [-2.54, 1.26, 0.0, 0.029]])
    codes = round_to_nearest(weight, FORMATS.get("w8a8"))
    assert codes.codes_OK.dtype == torch.int8
    assert codes.codes_OK.tolist() == [[127, -64, 0, 1], [-127, 63, 0, 1]]
    torch.testing.assert_close(codes.scale_ON, torch.tensor([[1.0], [0.02]]))
    assert codes.zeros_ON is None


def test_affine_codes_by_hand() -> None:
    weight = torch.zeros(2, 34)
    weight[0, :3] = torch.tensor([-5.0, 10.0, 0.6])
    weight[0, 32:] = torch.tensor([30.0, 14.9])
    weight[1, 0] = -7.5
    codes = round_to_nearest(weight, FORMATS.get("w4"))
    assert codes.codes_OK.dtype == torch.uint8
    assert codes.block == 32
    torch.testing.assert_close(codes.scale_ON, torch.tensor([[1.0, 2.0], [0.5, 1.0]]))
    assert codes.zeros_ON is not None
    assert codes.zeros_ON.tolist() == [[5, 0], [15, 0]]
    assert codes.codes_OK[0, :4].tolist() == [0, 15, 6, 5]
    assert codes.codes_OK[0, 32:].tolist() == [15, 7]
    assert codes.codes_OK[1, :2].tolist() == [0, 15]
    torch.testing.assert_close(codes.dequantize()[0, [0, 1, 2, 3, 32, 33]], torch.tensor([-5.0, 10, 1, 0, 30, 14]))


@pytest.mark.parametrize("name", QUANTIZED)
def test_zero_weights_stay_zero(name: str) -> None:
    codes = round_to_nearest(torch.zeros(3, 40), FORMATS.get(name))
    assert codes.dequantize().equal(torch.zeros(3, 40))
    assert bool((codes.scale_ON > 0).all())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(INTEGERS),
    st.integers(1, 5),
    st.integers(1, 150),
    st.floats(1e-6, 1e6),
    st.floats(-3, 3),
    st.integers(0, 10**6),
)
def test_error_is_at_most_half_a_step_and_codes_fit(
    name: str, rows: int, columns: int, size: float, shift: float, seed: int
) -> None:
    target = FORMATS.get(name)
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(rows, columns, generator=generator) + shift) * size
    codes = round_to_nearest(weight, target)
    step = codes.scale_ON.repeat_interleave(codes.block, 1)[:, :columns]
    assert bool(((codes.dequantize() - weight).abs() <= 0.5001 * step).all())
    low, high = (-127, 127) if target.symmetric else (0, 2**target.weight_bits - 1)
    assert low <= int(codes.codes_OK.min()) <= int(codes.codes_OK.max()) <= high
    again = round_to_nearest(codes.dequantize(), target)
    torch.testing.assert_close(again.dequantize(), codes.dequantize(), rtol=1e-5, atol=1e-6 * size)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 150), st.floats(1e-6, 1e6), st.integers(0, 10**6))
def test_float8_codes_are_the_nearest_of_all_float8_numbers(rows: int, columns: int, size: float, seed: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size
    codes = round_to_nearest(weight, FORMATS.get("fp8"))
    assert codes.codes_OK.dtype is torch.float8_e4m3fn
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    every = every[every.isfinite()]
    values = every * codes.scale_ON[..., None]
    nearest = (values - weight[..., None]).abs().amin(-1)
    torch.testing.assert_close((codes.dequantize() - weight).abs(), nearest, rtol=1e-3, atol=1e-6 * size)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 15), min_size=7, max_size=7), min_size=1, max_size=5), st.integers(1, 7))
def test_packed_nibbles_unpack(rows: list[list[int]], count: int) -> None:
    codes = torch.tensor(rows, dtype=torch.uint8)[:, :count]
    packed = pack_nibbles(codes)
    for row, values in enumerate(codes.tolist()):
        padded = [*values, 0]
        assert packed[row].tolist() == [padded[i] + 16 * padded[i + 1] for i in range(0, count, 2)]
    assert unpack_nibbles(packed, count).equal(codes)


def test_grid_of_several_columns_is_the_grid_of_each() -> None:
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    for name in QUANTIZED:
        grid = fit_grid(weight, FORMATS.get(name))
        together = grid.codes(weight)
        for column in range(9):
            codes = grid.codes(weight[:, column])
            assert codes.equal(together[:, column])
            assert grid.values(codes).equal(grid.values(together)[:, column])
