"""Quantized layers for the CPU that torch.compile traces whole: no value is read back.

Shape letters: T rows of the input, K input features, O output features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from workers.export.torch_layers import CPU_FORMS, Forms, Int8Form
from workers.quantization.linear import DynamicInt8Linear


class TracedCodes(NamedTuple):
    """An input as affine int8 with one range: value = (code + shift) * scale; scale and shift have one element."""

    codes: Tensor
    scale: Tensor
    shift: Tensor


def quantize_traced(input: Tensor) -> TracedCodes:
    """Round a tensor of any shape to signed codes of its own range, which holds 0; see `DynamicInt8Linear`."""
    low, high = torch.aminmax(input)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = torch.clamp(torch.round(-low / scale), 0, 255)
    codes = (torch.round(input / scale) + (zero - 128)).clamp(-128, 127).to(torch.int8)
    return TracedCodes(codes, scale, 128 - zero)


class TracedInt8Linear(Int8Form[TracedCodes]):
    """int8 products in the arithmetic of the search, for one call of the model.

    torch has a kernel of its own for products of packed weights, which the compiler takes as frozen constants only.
    These ones need no packing, and what is around them (codes, scales, bias, what follows) becomes one loop or two.
    """

    codes_OK: Tensor
    sums_O: Tensor

    def __init__(self, layer: DynamicInt8Linear) -> None:
        super().__init__(layer)
        self.register_buffer("codes_OK", layer.codes_OK)
        self.register_buffer("sums_O", layer.sums_O)

    @staticmethod
    def quantize(input: Tensor) -> TracedCodes:
        """Return the codes of an input."""
        return quantize_traced(input)

    def multiply(self, input: TracedCodes) -> Tensor:
        """Multiply codes of shape (..., K); returns float32, (..., O)."""
        codes_TK = input.codes.reshape(-1, input.codes.shape[-1])
        sums_TO = torch._int_mm(codes_TK, self.codes_OK.t()) + input.shift.int() * self.sums_O
        scaled_TO = sums_TO.float() * (input.scale * self.scale_O)
        if self.bias_O is not None:
            scaled_TO = scaled_TO + self.bias_O
        return scaled_TO.view(*input.codes.shape[:-1], -1)


COMPILED_FORMS: Forms = {**CPU_FORMS, DynamicInt8Linear: TracedInt8Linear}
"""Layers for a model that is compiled for the CPU."""
