"""Linear layers that compute in floating-point numbers of 16 bits, as kernels do: float32 sums, rounded once.

Shape letters: O output features, K input features, N blocks of K.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.formats import ActivationPrecision
from workers.quantization.codes import Codes

FLOAT_TYPES = {ActivationPrecision.BFLOAT16: torch.bfloat16, ActivationPrecision.FLOAT16: torch.float16}


class RoundedLinear(nn.Module):
    """Weights, bias, input and output in bfloat16 or float16; between layers values are float32.

    Args:
        weight_OK: The weight; it is rounded.
        bias_O: The bias, likewise.
        dtype: What they are rounded to.
    """

    weight_OK: Tensor
    bias_O: Tensor | None
    float_weight_OK: Tensor
    float_bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, weight_OK: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight_OK", weight_OK.to(dtype))
        self.register_buffer("bias_O", None if bias_O is None else bias_O.to(dtype))
        self.register_buffer("float_weight_OK", self.weight_OK.float(), persistent=False)
        self.register_buffer("float_bias_O", None if self.bias_O is None else self.bias_O.float(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        rounded = input.to(self.dtype).float()
        return nn.functional.linear(rounded, self.float_weight_OK, self.float_bias_O).to(self.dtype).float()


class RoundedInt4Linear(nn.Module):
    """Affine 4-bit weights in blocks that are expanded to bfloat16; input and product are bfloat16, the bias float32.

    A code stands for (code - 8) * scale + offset, with scale and offset in bfloat16.

    Reference: operator _weight_int4pack_mm of torch, known as tinygemm.
    """

    codes_OK: Tensor
    scale_ON: Tensor
    offset_ON: Tensor
    bias_O: Tensor | None
    weight_OK: Tensor
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, codes: Codes, bias_O: Tensor | None) -> None:
        super().__init__()
        assert codes.zeros_ON is not None
        self.in_features, self.block = codes.codes_OK.shape[1], codes.block
        self.register_buffer("codes_OK", codes.codes_OK)
        self.register_buffer("scale_ON", codes.scale_ON.bfloat16())
        self.register_buffer("offset_ON", ((8 - codes.zeros_ON.float()) * codes.scale_ON).bfloat16())
        self.register_buffer("bias_O", bias_O)
        self.register_buffer("weight_OK", self._expand(), persistent=False)

    @classmethod
    def from_parts(
        cls, codes_OK: Tensor, scale_ON: Tensor, offset_ON: Tensor, bias_O: Tensor | None, *, block: int
    ) -> RoundedInt4Linear:
        """Build a layer from what it stores; scale and offset are bfloat16 already."""
        zeros_ON = torch.full_like(scale_ON, 8, dtype=torch.uint8)
        found = cls(Codes(codes_OK=codes_OK, scale_ON=scale_ON.float(), zeros_ON=zeros_ON, block=block), bias_O)
        found.offset_ON = offset_ON
        found.weight_OK = found._expand()
        return found

    def _expand(self) -> Tensor:
        scale_OK, offset_OK = (
            part_ON.float().repeat_interleave(self.block, dim=1)[:, : self.in_features]
            for part_ON in (self.scale_ON, self.offset_ON)
        )
        return ((self.codes_OK.float() - 8) * scale_OK + offset_OK).bfloat16().float()

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        product = nn.functional.linear(input.bfloat16().float(), self.weight_OK).bfloat16().float()
        return product if self.bias_O is None else product + self.bias_O
