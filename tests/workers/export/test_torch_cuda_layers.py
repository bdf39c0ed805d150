"""Layers for NVIDIA GPUs, as far as a machine without one can tell: int8 products run anywhere, others by shape."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from search_spaces.formats import FORMATS
from workers.export.torch_cuda_layers import CUDA_FORMS, pack_high_first, scales_and_offsets
from workers.quantization.codes import round_to_nearest
from workers.quantization.float_linear import RoundedInt4Linear
from workers.quantization.linear import CallScope, make_linear
from workers.targets.device import KernelError

SHAPES = [(32, 384, 384), (1, 384, 1536), (5, 200, 24), (40, 50, 21)]


def _layer(name: str, rows: int, columns: int, *, bias: bool = True) -> nn.Module:
    target, generator = FORMATS.get(name), torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator) / math.sqrt(columns)
    tensors = {"weight": weight}
    if target.is_quantized:
        codes = round_to_nearest(weight, target)
        tensors = {"codes": codes.codes_OK, "scale": codes.scale_ON}
        tensors |= {} if codes.zeros_ON is None else {"zeros": codes.zeros_ON}
    tensors |= {"bias": torch.randn(rows, generator=generator)} if bias else {}
    return make_linear(tensors, target, in_features=columns, scope=CallScope())


def _input(tokens: int, columns: int) -> Tensor:
    return torch.randn(1, tokens, columns, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["w8a8r", "fp8", "bf16", "fp16"])
@pytest.mark.parametrize(("tokens", "columns", "rows"), SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_kernels_that_the_cpu_has_too_give_what_is_searched(
    name: str, tokens: int, columns: int, rows: int, bias: bool
) -> None:
    layer = _layer(name, rows, columns, bias=bias)
    x = _input(tokens, columns)
    expected = layer(x)
    found = CUDA_FORMS[type(layer)](layer)(x)
    tolerance = {"w8a8r": 1e-5, "fp16": 2**-9}.get(name, 2**-6)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("tokens", "columns", "rows"), SHAPES)
def test_shapes_of_4_bits_are_those_that_the_gpu_operators_take(tokens: int, columns: int, rows: int) -> None:
    layer, x = _layer("w4a16", rows, columns), _input(tokens, columns)
    # The product has no CPU form; torch checks types and shapes of tensors that hold nothing.
    with FakeTensorMode() as mode:
        for name, buffer in list(layer.named_buffers()):
            setattr(layer, name, mode.from_tensor(buffer))
        found = CUDA_FORMS[type(layer)](layer)(mode.from_tensor(x))
    assert found.shape == (1, tokens, rows)
    assert found.dtype is torch.float32


def test_codes_are_packed_with_the_first_in_the_high_half() -> None:
    codes = torch.tensor([[1, 2, 15, 0]], dtype=torch.uint8)
    assert pack_high_first(codes).tolist() == [[0x12, 0xF0]]


def test_scales_and_offsets_expand_to_the_searched_weight() -> None:
    layer = _layer("w4a16", 6, 200)
    assert isinstance(layer, RoundedInt4Linear)
    pairs = scales_and_offsets(layer, 8, 256)
    assert pairs.shape == (2, 8, 2)
    assert pairs.dtype is torch.bfloat16
    padded = nn.functional.pad(layer.codes_OK, (0, 56, 0, 2))
    for row in range(6):
        for column in range(200):
            scale, offset = pairs[column // 128, row].float()
            value = ((padded[row, column].float() - 8) * scale + offset).bfloat16().float()
            assert value == layer.weight_OK[row, column]


def test_formats_of_other_devices_are_refused() -> None:
    for name in ("w8a8", "w4"):
        layer = _layer(name, 8, 32)
        with pytest.raises(KernelError, match=f"{type(layer).__name__} has none on this one"):
            CUDA_FORMS[type(layer)](layer)
