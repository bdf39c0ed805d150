"""Layers of 16 bits against numbers rounded one by one, and against torch's own 16-bit products."""

import math

import numpy as np
import pytest
import torch

from search_spaces.formats import FORMATS
from workers.quantization.codes import round_to_nearest
from workers.quantization.float_linear import RoundedInt4Linear, RoundedLinear

TYPES = [torch.bfloat16, torch.float16]


def _weight(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator) / math.sqrt(columns)
    return weight, torch.randn(rows, generator=generator), torch.randn(2, 3, columns, generator=generator)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_sums_are_wide_and_rounded_once(dtype: torch.dtype, bias: bool) -> None:
    weight, bias_O, x = _weight(12, 40)
    found = RoundedLinear(weight, bias_O if bias else None, dtype)(x)
    rounded = x.to(dtype).double().numpy() @ weight.to(dtype).double().numpy().T
    rounded = rounded + (bias_O.to(dtype).double().numpy() if bias else 0)
    assert found.dtype is torch.float32
    assert found.equal(found.to(dtype).float())
    step = torch.finfo(dtype).eps
    np.testing.assert_allclose(found.double().numpy(), rounded, rtol=step / 2 * 1.01, atol=1e-6)


@pytest.mark.parametrize("dtype", TYPES)
def test_torch_computes_the_same(dtype: torch.dtype) -> None:
    weight, bias_O, x = _weight(12, 40)
    expected = torch.nn.functional.linear(x.to(dtype), weight.to(dtype), bias_O.to(dtype)).float()
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(RoundedLinear(weight, bias_O, dtype)(x), expected, rtol=step, atol=step)


@pytest.mark.parametrize("columns", [256, 200])
def test_blocks_of_codes_expand_to_bfloat16(columns: int) -> None:
    weight, bias_O, x = _weight(6, columns)
    codes = round_to_nearest(weight, FORMATS.get("w4a16"))
    assert codes.zeros_ON is not None
    layer = RoundedInt4Linear(codes, bias_O)
    expanded = np.zeros((6, columns), np.float32)
    for row in range(6):
        for column in range(columns):
            scale = codes.scale_ON[row, column // 128]
            offset = ((8 - codes.zeros_ON[row, column // 128].float()) * scale).bfloat16().float()
            value = (codes.codes_OK[row, column].float() - 8) * scale.bfloat16().float() + offset
            expanded[row, column] = value.bfloat16().float()
    np.testing.assert_array_equal(layer.weight_OK.numpy(), expanded)
    product = (x.bfloat16().double() @ torch.from_numpy(expanded).double().T).float().bfloat16().float() + bias_O
    torch.testing.assert_close(layer(x), product, rtol=2**-7, atol=1e-3)
    assert float((layer(x) - torch.nn.functional.linear(x, weight, bias_O)).std()) < 0.15
