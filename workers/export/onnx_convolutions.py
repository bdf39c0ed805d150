"""Static int8 convolutions as ONNX: quantized and dequantized around, which ONNX Runtime fuses to integer kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.quantization.convolution import FloatConvolution, RoundedActivation, StaticInt8Convolution

_OPSET = 20
_LARGE = 3e38


def _rounded(value: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    codes = torch.onnx.ops.symbolic(
        "QuantizeLinear", (value, scale, zero), dtype=torch.uint8, shape=value.shape, version=_OPSET
    )
    found: Tensor = torch.onnx.ops.symbolic(
        "DequantizeLinear", (codes, scale, zero), dtype=torch.float32, shape=value.shape, version=_OPSET
    )
    return found


class OnnxRoundedActivation(nn.Module):
    """QuantizeLinear and DequantizeLinear."""

    scale: Tensor
    zero: Tensor

    def __init__(self, layer: RoundedActivation) -> None:
        super().__init__()
        self.register_buffer("scale", layer.scale)
        self.register_buffer("zero", layer.zero)

    def forward(self, input: Tensor) -> Tensor:
        """Round; any shape."""
        return _rounded(input, self.scale, self.zero)


class OnnxFloatConvolution(nn.Module):
    """Conv in float32 behind codes.

    Between a DequantizeLinear and a QuantizeLinear ONNX Runtime would round the weights of a float Conv to int8 by
    itself (its optimiser WeightBiasQuantization). A clamp that changes nothing keeps them apart.
    """

    def __init__(self, layer: FloatConvolution) -> None:
        super().__init__()
        self.weight, self.bias, self.reads_codes = layer.weight, layer.bias, layer.reads_codes
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.kernel_size, self.groups = layer.kernel_size, layer.groups

    def forward(self, input: Tensor) -> Tensor:
        """Convolve; shape (B, C, H, W) to (B, O, H', W')."""
        kept = input.clamp(-_LARGE, _LARGE) if self.reads_codes else input
        return nn.functional.conv2d(kept, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class OnnxStaticConvolution(nn.Module):
    """Conv with its input, weight and output dequantized: what becomes QLinearConv."""

    codes_OCRR: Tensor
    scale_O: Tensor
    bias_O: Tensor
    input_scale: Tensor
    input_zero: Tensor
    output_scale: Tensor
    output_zero: Tensor

    def __init__(self, layer: StaticInt8Convolution) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.kernel_size, self.groups = layer.kernel_size, layer.groups
        names = ("codes_OCRR", "scale_O", "bias_O", "input_scale", "input_zero", "output_scale", "output_zero")
        for name in names:
            self.register_buffer(name, getattr(layer, name))

    def forward(self, input: Tensor) -> Tensor:
        """Convolve; shape (B, C, H, W) to (B, O, H', W')."""
        weight_OCRR = torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (self.codes_OCRR, self.scale_O),
            attrs={"axis": 0},
            dtype=torch.float32,
            shape=self.codes_OCRR.shape,
            version=_OPSET,
        )
        found = nn.functional.conv2d(
            _rounded(input, self.input_scale, self.input_zero),
            weight_OCRR,
            self.bias_O,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
        return _rounded(found, self.output_scale, self.output_zero)
