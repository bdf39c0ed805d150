"""Quantized layers as ONNX operators with real kernels, swapped in for the export alone.

Weights are packed here from the very codes that the search computed with, so that nothing is rounded twice.
Shape letters: O output features, K input features, N blocks of K, G columns of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from workers.export.onnx_convolutions import OnnxFloatConvolution, OnnxRoundedActivation, OnnxStaticConvolution
from workers.quantization.codes import pack_nibbles
from workers.quantization.convolution import FloatConvolution, RoundedActivation, StaticInt8Convolution
from workers.quantization.linear import BlockInt4Linear, DynamicInt8Linear

OPSET = 20
ACCURACY_LEVEL = 4
"""Inputs of MatMulNBits are rounded to int8 by block: the kernel whose arithmetic the search computes."""


class OnnxInt8Linear(nn.Module):
    """DynamicQuantizeLinear, MatMulInteger and a scale: what ONNX Runtime fuses to one int8 kernel."""

    codes_KO: Tensor
    scale_O: Tensor
    bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, layer: DynamicInt8Linear) -> None:
        super().__init__()
        self.register_buffer("codes_KO", layer.codes_OK.t().contiguous())
        self.register_buffer("scale_O", layer.scale_O)
        self.register_buffer("bias_O", layer.bias_O)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        codes, scale, zero = torch.onnx.ops.symbolic_multi_out(
            "DynamicQuantizeLinear",
            (input,),
            dtypes=(torch.uint8, torch.float32, torch.uint8),
            shapes=(input.shape, (), ()),
            version=OPSET,
        )
        sums = torch.onnx.ops.symbolic(
            "MatMulInteger",
            (codes, self.codes_KO, zero),
            dtype=torch.int32,
            shape=(*input.shape[:-1], self.codes_KO.shape[1]),
            version=OPSET,
        )
        scaled = sums.float() * (scale * self.scale_O)
        return scaled if self.bias_O is None else scaled + self.bias_O


class OnnxInt4Linear(nn.Module):
    """MatMulNBits with packed codes and zero points."""

    packed_ONG: Tensor
    scale_X: Tensor
    zeros_X: Tensor
    bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, layer: BlockInt4Linear) -> None:
        super().__init__()
        self.out_features, blocks = layer.scale_ON.shape
        self.in_features, self.block = layer.in_features, layer.block
        padded_OK = nn.functional.pad(layer.codes_OK, (0, -self.in_features % self.block))
        self.register_buffer("packed_ONG", pack_nibbles(padded_OK.view(self.out_features, blocks, self.block)))
        self.register_buffer("scale_X", layer.scale_ON.flatten())
        self.register_buffer("zeros_X", pack_nibbles(layer.zeros_ON).flatten())
        self.register_buffer("bias_O", layer.bias_O)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        product: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            (input, self.packed_ONG, self.scale_X, self.zeros_X),
            attrs={
                "K": self.in_features,
                "N": self.out_features,
                "bits": 4,
                "block_size": self.block,
                "accuracy_level": ACCURACY_LEVEL,
            },
            dtype=torch.float32,
            shape=(*input.shape[:-1], self.out_features),
            version=1,
        )
        return product if self.bias_O is None else product + self.bias_O


_FORMS: Mapping[type[nn.Module], Callable[..., nn.Module]] = {
    DynamicInt8Linear: OnnxInt8Linear,
    BlockInt4Linear: OnnxInt4Linear,
    FloatConvolution: OnnxFloatConvolution,
    StaticInt8Convolution: OnnxStaticConvolution,
    RoundedActivation: OnnxRoundedActivation,
}


@contextmanager
def onnx_layers(model: nn.Module) -> Iterator[None]:
    """Swap quantized layers for their ONNX form while the block runs, then put them back."""
    swapped: dict[str, nn.Module] = {}
    for name, layer in list(model.named_modules()):
        form = _FORMS.get(type(layer))
        if form is not None:
            model.set_submodule(name, form(layer))
            swapped[name] = layer
    try:
        yield
    finally:
        for name, layer in swapped.items():
            model.set_submodule(name, layer)
