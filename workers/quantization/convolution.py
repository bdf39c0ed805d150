"""Convolutions with static int8 activations, computed as the target's kernels compute them.

Shape letters: B batch, C input channels, O output channels, H height, W width, R rows of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticRange:
    """Affine uint8 codes of a feature map: value = (code - zero) * scale.

    Attributes:
        scale: float32 scalar, above 0.
        zero: uint8 scalar, the code of the value 0.
    """

    scale: Tensor
    zero: Tensor

    @classmethod
    def of(cls, low: Tensor, high: Tensor) -> StaticRange:
        """The codes of a range, widened so that it holds 0.

        Args:
            low: Smallest value, scalar.
            high: Largest value, scalar.
        """
        low, high = low.float().clamp(max=0), high.float().clamp(min=0)
        scale = (high - low) / LEVELS
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return cls(scale=scale, zero=torch.clamp(torch.round(-low / scale), 0, LEVELS).to(torch.uint8))

    def centred_codes(self, value: Tensor) -> Tensor:
        """Codes minus the zero point, as float32."""
        zero = self.zero.float()
        return torch.clamp(torch.round(value / self.scale) + zero, 0, LEVELS) - zero

    def round(self, value: Tensor) -> Tensor:
        """Nearest values that codes stand for."""
        return self.centred_codes(value) * self.scale


class RoundedActivation(nn.Module):
    """Rounds a feature map to its static codes; a range from 0 is a rectifier as well.

    Reference: operators QuantizeLinear and DequantizeLinear of ONNX, opset 13.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, found: StaticRange) -> None:
        super().__init__()
        self.register_buffer("scale", found.scale)
        self.register_buffer("zero", found.zero)

    def forward(self, input: Tensor) -> Tensor:
        """Round; any shape."""
        return StaticRange(scale=self.scale, zero=self.zero).round(input)


class StaticInt8Convolution(nn.Module):
    """Per-channel symmetric int8 weights between static uint8 codes of input and output.

    Codes are multiplied as float32 integers, which is exact while sums stay below 2^24. The bias is an integer in units
    of input scale times weight scale, as in the kernel.

    Args:
        dense: The convolution whose stride, padding and dilation hold.
        codes_OCRR: Weight codes, int8.
        scale_O: Weight scales.
        bias_O: Bias.
        input_range: Codes of the input.
        output_range: Codes of the output, the clamp behind the convolution included.

    Reference: operator QLinearConv of ONNX, opset 10.
    """

    codes_OCRR: Tensor
    scale_O: Tensor
    bias_O: Tensor
    weight_OCRR: Tensor
    input_scale: Tensor
    input_zero: Tensor
    output_scale: Tensor
    output_zero: Tensor

    def __init__(
        self,
        dense: nn.Conv2d,
        *,
        codes_OCRR: Tensor,
        scale_O: Tensor,
        bias_O: Tensor,
        input_range: StaticRange,
        output_range: StaticRange,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = dense.stride, dense.padding, dense.dilation
        self.kernel_size = dense.kernel_size
        self.groups = 1 if dense.groups == 1 else codes_OCRR.shape[0]
        self.register_buffer("codes_OCRR", codes_OCRR)
        self.register_buffer("scale_O", scale_O)
        self.register_buffer("bias_O", bias_O)
        self.register_buffer("weight_OCRR", codes_OCRR.float(), persistent=False)
        self.register_buffer("input_scale", input_range.scale)
        self.register_buffer("input_zero", input_range.zero)
        self.register_buffer("output_scale", output_range.scale)
        self.register_buffer("output_zero", output_range.zero)

    @property
    def input_range(self) -> StaticRange:
        """Codes of the input."""
        return StaticRange(scale=self.input_scale, zero=self.input_zero)

    @property
    def output_range(self) -> StaticRange:
        """Codes of the output."""
        return StaticRange(scale=self.output_scale, zero=self.output_zero)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve; shape (B, C, H, W) to (B, O, H', W')."""
        codes_BCHW = self.input_range.centred_codes(input)
        step_O = self.input_scale * self.scale_O
        bias_O = torch.round(self.bias_O / step_O)
        sums_BOHW = nn.functional.conv2d(
            codes_BCHW, self.weight_OCRR, bias_O, self.stride, self.padding, self.dilation, self.groups
        )
        zero = self.output_zero.float()
        codes_BOHW = torch.round(sums_BOHW * (step_O / self.output_scale)[:, None, None]) + zero
        return (codes_BOHW.clamp_(0, LEVELS) - zero) * self.output_scale


class ConstantMap(nn.Module):
    """What a residual branch of convolutions adds when none of its inner channels stay: a constant for each channel.

    Args:
        bias_O: The constants.
        stride: Step of the branch: how many rows of the input make one of the output.
    """

    bias_O: Tensor

    def __init__(self, bias_O: Tensor, *, stride: int) -> None:
        super().__init__()
        self.register_buffer("bias_O", bias_O)
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        """Return the constants, spread over the output's places; shape (B, C, H, W) to (B, O, H', W')."""
        height, width = ((size + self.stride - 1) // self.stride for size in input.shape[2:])
        # The caller adds in place, so that the result must have memory of its own.
        return self.bias_O[None, :, None, None].expand(input.shape[0], -1, height, width).clone()


class FloatConvolution(nn.Conv2d):
    """A float32 convolution.

    Attributes:
        reads_codes: Whether its input was rounded to codes, which the export has to know.
    """

    reads_codes: bool = False


def float_convolution(
    dense: nn.Conv2d, weight_OCRR: Tensor, bias_O: Tensor | None, *, reads_codes: bool
) -> FloatConvolution:
    """A float32 convolution with other channels than the dense one's, and the same stride, padding and dilation."""
    groups = 1 if dense.groups == 1 else weight_OCRR.shape[0]
    found = FloatConvolution(
        weight_OCRR.shape[1] * groups,
        weight_OCRR.shape[0],
        dense.kernel_size,  # type: ignore[arg-type]
        stride=dense.stride,  # type: ignore[arg-type]
        padding=dense.padding,  # type: ignore[arg-type]
        dilation=dense.dilation,  # type: ignore[arg-type]
        groups=groups,
        bias=bias_O is not None,
        device="meta",
    )
    found.reads_codes = reads_codes
    found.weight = nn.Parameter(weight_OCRR, requires_grad=False)
    if bias_O is not None:
        found.bias = nn.Parameter(bias_O, requires_grad=False)
    return found
