"""Layers whose input rows have scales of their own, against loops over rows."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from search_spaces.formats import FORMATS
from workers.quantization.codes import Codes, round_to_nearest
from workers.quantization.row_linear import RowFloat8Linear, RowInt8Linear


def _case(name: str) -> tuple[Codes, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 40, generator=generator) / math.sqrt(40)
    codes = round_to_nearest(weight, FORMATS.get(name))
    return codes, torch.randn(6, generator=generator), torch.randn(2, 5, 40, generator=generator) + 0.3


def test_int8_rows_are_rounded_by_their_largest_value() -> None:
    codes, bias, x = _case("w8a8r")
    x[0, 0] *= 1000
    rows = x.flatten(0, 1).double().numpy()
    expected = np.zeros((10, 6))
    for index, row in enumerate(rows):
        scale = np.float32(np.abs(row).max()) / np.float32(127)
        rounded = np.rint(row / scale)
        assert np.abs(rounded).max() == 127
        sums = rounded @ codes.codes_OK.double().numpy().T
        expected[index] = sums * float(scale) * codes.scale_ON[:, 0].double().numpy() + bias.double().numpy()
    np.testing.assert_allclose(RowInt8Linear(codes, bias)(x).flatten(0, 1).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_float8_rows_are_rounded_to_the_nearest_float8_number() -> None:
    codes, bias, x = _case("fp8")
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    every = every[every.isfinite()]
    expected = torch.zeros(10, 6)
    for index, row in enumerate(x.flatten(0, 1)):
        scale = row.abs().max() / 448
        nearest = every[((row / scale)[:, None] - every).abs().argmin(1)]
        product = (codes.codes_OK.float() @ nearest) * scale * codes.scale_ON[:, 0]
        expected[index] = (product + bias.bfloat16().float()).bfloat16().float()
    found = RowFloat8Linear(codes, bias)(x)
    assert found.equal(found.bfloat16().float())
    torch.testing.assert_close(found.flatten(0, 1), expected, rtol=2**-7, atol=2e-2)


@pytest.mark.parametrize(("name", "layer"), [("w8a8r", RowInt8Linear), ("fp8", RowFloat8Linear)])
def test_rows_of_zeros_give_the_bias(name: str, layer: type[RowInt8Linear] | type[RowFloat8Linear]) -> None:
    codes, bias, x = _case(name)
    torch.testing.assert_close(layer(codes, bias)(torch.zeros_like(x))[0, 0], bias, rtol=2**-7, atol=1e-6)
    assert layer(codes, None)(torch.zeros_like(x)).equal(torch.zeros(2, 5, 6))
