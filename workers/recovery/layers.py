"""Compressed layers in the form that trains, and back: the same arithmetic, with gradients.

Shape letters: O output features or channels, K input features, N blocks of K, B batch, C channels, H height, W width,
R rows of a kernel.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from search_spaces.formats import FORMATS, Format
from workers.quantization.codes import Codes, code_type, fit_grid, round_to_nearest
from workers.quantization.convolution import (
    LEVELS,
    ConstantMap,
    FloatConvolution,
    RoundedActivation,
    StaticInt8Convolution,
    StaticRange,
)
from workers.quantization.embedding import Int8RowsEmbedding
from workers.quantization.float_linear import RoundedLinear
from workers.quantization.linear import Bypass, CallScope, ConstantBranch, DynamicInt8Linear, UnreadNorm
from workers.recovery.arithmetics import ARITHMETICS, Arithmetic
from workers.recovery.quantizers import CodeRange, codes_at_steps, round_to_learned_steps, straight_through


class RecoveryError(RuntimeError):
    """A model can't be trained, or its training failed."""


class TrainedCodes(nn.Module):
    """A weight that is rounded to codes with learned scales; the base of layers that train.

    Scales are learned as logarithms, so that a step of the optimizer changes each by a share of itself, whatever its
    size, and none reaches 0.

    Args:
        codes: What the layer computes with now; the weight starts as what they stand for.
        target: The format.
        bias_O: Bias.

    Attributes:
        bits: Bits that the weight is rounded to; None where neither it nor the input is rounded.

    Reference:
        Jain et al., Trained Quantization Thresholds (1903.08066), section 3.3, for the logarithm.
    """

    zeros_ON: Tensor | None

    def __init__(self, codes: Codes, target: Format, bias_O: Tensor | None) -> None:
        super().__init__()
        self.target, self.block = target, codes.block
        self.bits: int | None = target.weight_bits
        self.weight = nn.Parameter(codes.dequantize())
        self.log_scale_ON = nn.Parameter(codes.scale_ON.float().log())
        self.register_buffer("zeros_ON", None if codes.zeros_ON is None else codes.zeros_ON.float())
        self.bias = None if bias_O is None else nn.Parameter(bias_O.float().clone())

    def rounded_weight(self) -> Tensor:
        """The weight as it is multiplied, float32 of shape (O, K)."""
        if self.bits is None:
            return self.weight
        codes = CodeRange.of(self._target_of(self.bits))
        return round_to_learned_steps(self.weight, self.log_scale_ON.exp(), self.zeros_ON, codes, block=self.block)

    def use_bits(self, bits: int | None) -> None:
        """Round to so many bits from now on; where they change, scales start anew from the weight's ranges."""
        if bits == self.bits:
            return
        self.bits = bits
        if bits is not None:
            self._fit(bits)

    def codes(self) -> Codes:
        """Codes of the format: by the learned scales where they are of its bits, else to nearest."""
        weight_OK = self.weight.detach()
        if self.bits != self.target.weight_bits:
            return round_to_nearest(weight_OK, self.target)
        scale_ON = self.log_scale_ON.detach().exp()
        codes_OK = codes_at_steps(weight_OK, scale_ON, self.zeros_ON, CodeRange.of(self.target), block=self.block)
        return Codes(
            codes_OK=codes_OK.to(code_type(self.target)),
            scale_ON=scale_ON,
            zeros_ON=None if self.zeros_ON is None else self.zeros_ON.to(torch.uint8),
            block=self.block,
        )

    def _target_of(self, bits: int) -> Format:
        return self.target if self.target.is_float8 else replace(self.target, weight_bits=bits)

    @torch.no_grad()
    def _fit(self, bits: int) -> None:
        padded_OK = nn.functional.pad(self.weight, (0, -self.weight.shape[1] % self.block))
        grid = fit_grid(padded_OK.view(-1, self.block), self._target_of(bits))
        self.log_scale_ON.copy_(grid.scale_O.view(self.log_scale_ON.shape).log())
        if self.zeros_ON is not None:
            self.zeros_ON.copy_(grid.zeros_O.view(self.zeros_ON.shape))


class TrainedLinear(TrainedCodes):
    """A quantized linear layer that trains.

    Args:
        layer: The layer that the runtime's kernels are computed by.
        arithmetic: How its class computes.
    """

    def __init__(self, layer: nn.Module, arithmetic: Arithmetic) -> None:
        bias_O: Tensor | None = layer.bias_O  # type: ignore[assignment]
        super().__init__(arithmetic.codes(layer), arithmetic.target(layer), bias_O)
        self.arithmetic = arithmetic
        self._kept = (layer,)

    @property
    def layer(self) -> nn.Module:
        """The layer that is trained, as it was."""
        return self._kept[0]

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        if self.bits is None:
            return nn.functional.linear(input, self.weight, self.bias)
        layer, arithmetic = self.layer, self.arithmetic
        with torch.no_grad():
            rounded = arithmetic.round_input(layer, input.float())
        output = nn.functional.linear(straight_through(input, rounded), self.rounded_weight(), self.bias)
        if arithmetic.round_output is None:
            return output
        return straight_through(output, arithmetic.round_output(layer, output.detach()))

    def shipped(self) -> nn.Module:
        """The layer of the runtime's arithmetic with the trained codes."""
        bias_O = None if self.bias is None else self.bias.detach().clone()
        return self.arithmetic.build(self.layer, self.codes(), bias_O)


class TrainedConvolution(TrainedCodes):
    """A convolution between static codes that trains; the ranges of its input and output stay."""

    def __init__(self, layer: StaticInt8Convolution) -> None:
        codes_OK = layer.codes_OCRR.flatten(1)
        codes = Codes(codes_OK=codes_OK, scale_ON=layer.scale_O[:, None], zeros_ON=None, block=codes_OK.shape[1])
        super().__init__(codes, FORMATS.get("w8a8"), layer.bias_O)
        self._kept = (layer,)

    @property
    def layer(self) -> StaticInt8Convolution:
        """The convolution that is trained, as it was."""
        return self._kept[0]

    def forward(self, input: Tensor) -> Tensor:
        """Convolve; shape (B, C, H, W) to (B, O, H', W')."""
        layer, is_rounded = self.layer, self.bits is not None
        seen = _to_range(input, layer.input_range, is_rounded=is_rounded)
        weight_OCRR = self.rounded_weight().view(layer.codes_OCRR.shape)
        output = nn.functional.conv2d(
            seen, weight_OCRR, self.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
        return _to_range(output, layer.output_range, is_rounded=is_rounded)

    def shipped(self) -> nn.Module:
        """The convolution of the runtime's arithmetic with the trained codes."""
        found = copy.deepcopy(self.layer)
        codes, bias = self.codes(), self.bias
        assert bias is not None
        found.codes_OCRR = codes.codes_OK.view(found.codes_OCRR.shape)
        found.weight_OCRR = found.codes_OCRR.float()
        found.scale_O, found.bias_O = codes.scale_ON[:, 0].clone(), bias.detach().clone()
        return found


class TrainedActivation(nn.Module):
    """Static codes of a feature map, with gradients where nothing is clamped."""

    def __init__(self, layer: RoundedActivation) -> None:
        super().__init__()
        self._kept = (layer,)

    def forward(self, input: Tensor) -> Tensor:
        """Round; any shape."""
        layer = self._kept[0]
        return _to_range(input, StaticRange(scale=layer.scale, zero=layer.zero), is_rounded=True)

    def shipped(self) -> nn.Module:
        """The layer as it was."""
        return self._kept[0]


class TrainedRounded(nn.Module):
    """A linear layer in bfloat16 or float16 that trains in float32."""

    def __init__(self, layer: RoundedLinear) -> None:
        super().__init__()
        self.dtype = layer.dtype
        self.weight = nn.Parameter(layer.weight_OK.float())
        self.bias = None if layer.bias_O is None else nn.Parameter(layer.bias_O.float())

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        input, weight_OK = self._round(input), self._round(self.weight)
        bias_O = None if self.bias is None else self._round(self.bias)
        return self._round(nn.functional.linear(input, weight_OK, bias_O))

    def shipped(self) -> nn.Module:
        """The layer of the runtime's arithmetic."""
        return RoundedLinear(self.weight.detach(), None if self.bias is None else self.bias.detach(), self.dtype)

    def _round(self, value: Tensor) -> Tensor:
        return straight_through(value, value.detach().to(self.dtype).float())


def _to_range(value: Tensor, found: StaticRange, *, is_rounded: bool) -> Tensor:
    """Clamp to a static range, which stands for a rectifier too, and round to its codes; straight through inside."""
    low = -found.zero.float() * found.scale
    clamped = value.clamp(low.to(value), (low + LEVELS * found.scale).to(value))
    return straight_through(clamped, found.round(clamped.detach())) if is_rounded else clamped


Trained = TrainedLinear | TrainedConvolution | TrainedActivation | TrainedRounded
_AS_THEY_ARE = (ConstantBranch, ConstantMap, Bypass, UnreadNorm, Int8RowsEmbedding, FloatConvolution)
"""Compressed parts without codes to learn."""


def make_trainable(model: nn.Module) -> None:
    """Give an assembled model layers that train, in place. Embedding tables, and layers tied to one, stay as they are.

    Raises:
        RecoveryError: A compressed layer has no form that trains.
    """
    for name, layer in list(model.named_modules()):
        trained = _trained_form(name, layer)
        if trained is not None:
            model.set_submodule(name, trained)
    model.requires_grad_(True)
    for layer in model.modules():
        if isinstance(layer, nn.Embedding):
            layer.requires_grad_(False)


def shipped(model: nn.Module) -> nn.Module:
    """A copy of a model that trains, on the CPU, with layers of the runtime's arithmetic."""
    found = copy.deepcopy(model).cpu().eval()
    for name, layer in list(found.named_modules()):
        if isinstance(layer, Trained):
            found.set_submodule(name, layer.shipped())
    return found.requires_grad_(False)


def scope_of(model: nn.Module) -> CallScope:
    """Where one call ends in a model; of no effect where no layer asks."""
    for layer in model.modules():
        layer = layer.layer if isinstance(layer, TrainedLinear) else layer
        if isinstance(layer, DynamicInt8Linear):
            return layer.scope
    return CallScope()


def quantized_layers(model: nn.Module) -> list[TrainedCodes]:
    """Layers whose codes are learned, in the model's order."""
    return [layer for layer in model.modules() if isinstance(layer, TrainedCodes)]


def _trained_form(name: str, layer: nn.Module) -> nn.Module | None:
    if type(layer) in ARITHMETICS:
        return TrainedLinear(layer, ARITHMETICS[type(layer)])
    if isinstance(layer, StaticInt8Convolution):
        return TrainedConvolution(layer)
    if isinstance(layer, RoundedActivation):
        return TrainedActivation(layer)
    if isinstance(layer, RoundedLinear):
        return TrainedRounded(layer)
    if type(layer).__module__.startswith("workers.quantization.") and not isinstance(layer, _AS_THEY_ARE):
        raise RecoveryError(
            f"a compressed layer needs a form that trains; {name!r} is a {type(layer).__name__}; pick a policy without "
            "its format, or export without recovery"
        )
    return None
