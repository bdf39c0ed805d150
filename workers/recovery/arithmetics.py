"""How each class of quantized linear layers computes, taken apart so that codes can be learned.

Shape letters: O output features, K input features, N blocks of K, R rows of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from search_spaces.formats import FORMATS, Format
from workers.quantization.codes import FLOAT8_MAX, Codes
from workers.quantization.float_linear import RoundedInt4Linear
from workers.quantization.linear import BlockInt4Linear, DynamicInt8Linear, SharedInput, round_blocks
from workers.quantization.row_linear import INT8_MAX, RowFloat8Linear, RowInt8Linear, row_scale

_LARGEST_ZERO = 8
"""Offsets of `RoundedInt4Linear` are counted from this code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """How a class of layers computes.

    Attributes:
        target: Format of a layer's weights.
        codes: Codes of a layer.
        build: (layer, codes, bias) -> the same layer with other codes.
        round_input: (layer, input) -> the input as the kernel sees it.
        round_output: (layer, output) -> the output as the kernel gives it; None leaves it.
    """

    target: Callable[[nn.Module], Format]
    codes: Callable[[nn.Module], Codes]
    build: Callable[[nn.Module, Codes, Tensor | None], nn.Module]
    round_input: Callable[[nn.Module, Tensor], Tensor]
    round_output: Callable[[nn.Module, Tensor], Tensor] | None = None


def _row_codes(layer: nn.Module) -> Codes:
    assert isinstance(layer, DynamicInt8Linear | RowInt8Linear | RowFloat8Linear)
    return Codes(codes_OK=layer.codes_OK, scale_ON=layer.scale_O[:, None], zeros_ON=None, block=layer.codes_OK.shape[1])


def _block_codes(layer: nn.Module) -> Codes:
    assert isinstance(layer, BlockInt4Linear)
    return Codes(codes_OK=layer.codes_OK, scale_ON=layer.scale_ON, zeros_ON=layer.zeros_ON, block=layer.block)


def _offset_codes(layer: nn.Module) -> Codes:
    assert isinstance(layer, RoundedInt4Linear)
    scale_ON = layer.scale_ON.float()
    zeros_ON = (_LARGEST_ZERO - layer.offset_ON.float() / scale_ON).round()
    return Codes(codes_OK=layer.codes_OK, scale_ON=scale_ON, zeros_ON=zeros_ON.to(torch.uint8), block=layer.block)


def _build_dynamic(layer: nn.Module, codes: Codes, bias_O: Tensor | None) -> nn.Module:
    assert isinstance(layer, DynamicInt8Linear)
    return DynamicInt8Linear(codes, bias_O, layer.scope, layer.shared)


def _round_per_call(layer: nn.Module, input: Tensor) -> Tensor:
    assert isinstance(layer, DynamicInt8Linear)
    found = SharedInput(readers=1).codes(input, layer.scope.calls(input.shape[0]), integers=False)
    return ((found.codes_CXK + found.shift_C1[:, :, None]) * found.scale_C1[:, :, None]).view(input.shape)


def _round_per_row(layer: nn.Module, input: Tensor) -> Tensor:
    scale_R1 = row_scale(input, INT8_MAX)
    return (input / scale_R1).round() * scale_R1


def _round_float8(layer: nn.Module, input: Tensor) -> Tensor:
    scale_R1 = row_scale(input, FLOAT8_MAX)
    return (input / scale_R1).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn).float() * scale_R1


def _round_per_block(layer: nn.Module, input: Tensor) -> Tensor:
    assert isinstance(layer, BlockInt4Linear)
    return round_blocks(input, layer.block)


def _bfloat16(layer: nn.Module, value: Tensor) -> Tensor:
    return value.bfloat16().float()


def _float8_format(layer: nn.Module) -> Format:
    return FORMATS.get("fp8")


def _block_format(layer: nn.Module) -> Format:
    assert isinstance(layer, BlockInt4Linear | RoundedInt4Linear)
    return replace(FORMATS.get("w4"), group_size=layer.block)


def _row_format(layer: nn.Module) -> Format:
    return FORMATS.get("w8a8")


ARITHMETICS: Mapping[type[nn.Module], Arithmetic] = {
    DynamicInt8Linear: Arithmetic(
        target=_row_format, codes=_row_codes, build=_build_dynamic, round_input=_round_per_call
    ),
    RowInt8Linear: Arithmetic(
        target=_row_format,
        codes=_row_codes,
        build=lambda layer, codes, bias_O: RowInt8Linear(codes, bias_O),
        round_input=_round_per_row,
    ),
    RowFloat8Linear: Arithmetic(
        target=_float8_format,
        codes=_row_codes,
        build=lambda layer, codes, bias_O: RowFloat8Linear(codes, bias_O),
        round_input=_round_float8,
        round_output=_bfloat16,
    ),
    BlockInt4Linear: Arithmetic(
        target=_block_format,
        codes=_block_codes,
        build=lambda layer, codes, bias_O: BlockInt4Linear(codes, bias_O),
        round_input=_round_per_block,
    ),
    RoundedInt4Linear: Arithmetic(
        target=_block_format,
        codes=_offset_codes,
        build=lambda layer, codes, bias_O: RoundedInt4Linear(codes, bias_O),
        round_input=_bfloat16,
        round_output=_bfloat16,
    ),
}
