"""Linear layers whose inputs get one scale for each row at run time, as graphics processors compute them.

Shape letters: R rows of the input, O output features, K input features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.quantization.codes import FLOAT8_MAX, Codes

INT8_MAX = 127
_LEAST_SCALE = 1e-30


def row_scale(input: Tensor, largest_code: int) -> Tensor:
    """Scale of each row, so that its largest value gets the largest code; shape (..., K) to (..., 1)."""
    return (input.abs().amax(-1, keepdim=True) / largest_code).clamp(min=_LEAST_SCALE)


class RowInt8Linear(nn.Module):
    """Per-channel symmetric int8 weights, inputs symmetric int8 with a scale for each row.

    Reference: Int8DynamicActivationInt8WeightConfig of torchao.
    """

    codes_OK: Tensor
    scale_O: Tensor
    bias_O: Tensor | None
    float_codes_OK: Tensor
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, codes: Codes, bias_O: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("codes_OK", codes.codes_OK)
        self.register_buffer("scale_O", codes.scale_ON[:, 0])
        self.register_buffer("bias_O", bias_O)
        self.register_buffer("float_codes_OK", codes.codes_OK.float(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        scale_R1 = row_scale(input, INT8_MAX)
        codes_RK = (input / scale_R1).round_()
        scaled_RO = nn.functional.linear(codes_RK, self.float_codes_OK) * scale_R1 * self.scale_O
        return scaled_RO if self.bias_O is None else scaled_RO + self.bias_O


class RowFloat8Linear(nn.Module):
    """Weights as e4m3 with a scale for each channel, inputs as e4m3 with one for each row, the output bfloat16.

    Reference: Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()) of torchao.
    """

    codes_OK: Tensor
    scale_O: Tensor
    bias_O: Tensor | None
    float_codes_OK: Tensor
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, codes: Codes, bias_O: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("codes_OK", codes.codes_OK)
        self.register_buffer("scale_O", codes.scale_ON[:, 0])
        self.register_buffer("bias_O", None if bias_O is None else bias_O.bfloat16())
        self.register_buffer("float_codes_OK", codes.codes_OK.float(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        scale_R1 = row_scale(input, FLOAT8_MAX)
        codes_RK = (input / scale_R1).clamp_(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn).float()
        scaled_RO = nn.functional.linear(codes_RK, self.float_codes_OK) * scale_R1 * self.scale_O
        return (scaled_RO if self.bias_O is None else scaled_RO + self.bias_O.float()).bfloat16().float()
