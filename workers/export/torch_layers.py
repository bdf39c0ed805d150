"""Quantized layers as torch modules with real kernels, for a copy of the assembled model.

Weights are packed from the very codes that the search computed with, so that nothing is rounded twice.
Shape letters: O output features, K input features, N blocks of K.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from workers.quantization.convolution import RoundedActivation, StaticInt8Convolution
from workers.quantization.float_linear import RoundedInt4Linear, RoundedLinear
from workers.quantization.linear import BlockInt4Linear, DynamicInt8Linear, has_int8_products
from workers.quantization.row_linear import RowFloat8Linear, RowInt8Linear
from workers.targets.device import KernelError

Forms = Mapping[type[nn.Module], Callable[[Any], nn.Module]]
"""Layer class of the search to a function that gives the layer with real kernels."""
CodesT = TypeVar("CodesT")


class TensorCodes(NamedTuple):
    """A tensor as affine uint8 with one range: value = (code - zero) * scale."""

    codes: Tensor
    scale: float
    zero: int


def quantize_tensor(input: Tensor) -> TensorCodes:
    """Round a tensor of any shape to codes of its own range, which holds 0."""
    low_tensor, high_tensor = torch.aminmax(input)
    low, high = min(low_tensor.item(), 0.0), max(high_tensor.item(), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    # Values are not below 0 here, so that cutting off the fraction rounds to nearest.
    codes = input.mul(1 / scale).add_(zero + 0.5).clamp_(max=255).to(torch.uint8)
    return TensorCodes(codes, scale, zero)


class SharedCodes(Generic[CodesT]):
    """Codes of an input that several layers read one after the other; see `SharedInput`.

    Args:
        readers: How many layers read it; after the last of them nothing is held any more.
        quantize: Returns the codes of an input.
    """

    def __init__(self, readers: int, quantize: Callable[[Tensor], CodesT]) -> None:
        self._readers, self._left = readers, 0
        self._quantize = quantize
        self._input: Tensor | None = None
        self._codes: CodesT | None = None

    def codes(self, input: Tensor) -> CodesT:
        """Quantize an input, or return the codes that the layer before got of the very same tensor."""
        found = self._codes if self._input is input else None
        if found is None:
            found, self._left = self._quantize(input), self._readers
            self._input, self._codes = input, found
        self._left -= 1
        if self._left == 0:
            self._input = self._codes = None
        return found


class Int8Form(nn.Module, Generic[CodesT]):
    """A linear layer with int8 products: its input's codes, shared with layers that read the same, times its weights.

    Args:
        layer: The layer of the search.

    Raises:
        KernelError: The processor lacks the instructions, or the layer has but one input feature.
    """

    scale_O: Tensor
    bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, layer: DynamicInt8Linear) -> None:
        super().__init__()
        if not has_int8_products():
            raise KernelError(
                "int8 layers need a CPU with VNNI instructions, without which int8 products overflow; this one has "
                "none; leave 'w8a8' out of space.formats"
            )
        if layer.codes_OK.shape[1] < 2:
            # oneDNN takes a matrix of one column for its transpose, and products are wrong.
            raise KernelError(
                "int8 layers have two input features or more; got one; leave 'w8a8' out of the unit's formats"
            )
        self.shared = SharedCodes(readers=1, quantize=self.quantize)
        self.register_buffer("scale_O", layer.scale_O)
        self.register_buffer("bias_O", layer.bias_O)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        return self.multiply(self.shared.codes(input))

    @staticmethod
    def quantize(input: Tensor) -> CodesT:
        """Return the codes of an input of any shape, with one range."""
        raise NotImplementedError

    def multiply(self, input: CodesT) -> Tensor:
        """Multiply codes of shape (..., K); returns float32, (..., O)."""
        raise NotImplementedError


class Int8KernelLinear(Int8Form[TensorCodes]):
    """int8 products by oneDNN: codes of the input, one range a call, times packed per-channel weights."""

    packed_weight: Tensor
    zeros_O: Tensor

    def __init__(self, layer: DynamicInt8Linear) -> None:
        super().__init__(layer)
        self.register_buffer("packed_weight", torch.ops.onednn.qlinear_prepack(layer.codes_OK, None))
        self.register_buffer("zeros_O", torch.zeros(len(layer.scale_O), dtype=torch.int32))

    @staticmethod
    def quantize(input: Tensor) -> TensorCodes:
        """Return the codes of an input."""
        return quantize_tensor(input)

    def multiply(self, input: TensorCodes) -> Tensor:
        """Multiply codes of shape (..., K); returns float32, (..., O)."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            *input, self.packed_weight, self.scale_O, self.zeros_O, self.bias_O, 1.0, 0, torch.float32, "none", [], ""
        )
        return product


class FloatKernelLinear(nn.Module):
    """A linear layer in bfloat16 or float16 between float32 layers."""

    weight_OK: Tensor
    bias_O: Tensor | None
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, layer: RoundedLinear) -> None:
        super().__init__()
        self.dtype = layer.dtype
        self.register_buffer("weight_OK", layer.weight_OK)
        self.register_buffer("bias_O", layer.bias_O)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        return nn.functional.linear(input.to(self.dtype), self.weight_OK, self.bias_O).to(input.dtype)


def _refuse(layer: nn.Module) -> nn.Module:
    raise KernelError(
        f"every layer of a model has a kernel on its target; {type(layer).__name__} has none on this one; take formats "
        "that `paretrim targets` lists for it"
    )


REFUSED: Forms = dict.fromkeys(
    (
        BlockInt4Linear,
        DynamicInt8Linear,
        StaticInt8Convolution,
        RoundedActivation,
        RowInt8Linear,
        RowFloat8Linear,
        RoundedInt4Linear,
    ),
    _refuse,
)


def _bfloat16_only(layer: RoundedLinear) -> nn.Module:
    return FloatKernelLinear(layer) if layer.dtype is torch.bfloat16 else _refuse(layer)


CPU_FORMS: Forms = {**REFUSED, DynamicInt8Linear: Int8KernelLinear, RoundedLinear: _bfloat16_only}
"""Layers for the CPU."""


def torch_form(model: nn.Module, forms: Forms, device: torch.device) -> nn.Module:
    """Copy a model with its quantized layers replaced by ones with real kernels.

    Args:
        model: An assembled model on the CPU; it stays as it is. A copy for the CPU shares its other weights.
        forms: Layers of the device.
        device: Where the copy goes.

    Raises:
        KernelError: A layer has no kernel there.
    """
    # Moving a module moves the very parameters that it shares with others.
    tensors = (*model.parameters(), *model.buffers()) if device.type == "cpu" else ()
    found = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).to(device)
    layers = {name: layer for name, layer in found.named_modules() if type(layer) in forms}
    readers = Counter(id(layer.shared) for layer in layers.values() if isinstance(layer, DynamicInt8Linear))
    shared: dict[int, SharedCodes[Any]] = {}
    for name, layer in layers.items():
        form = forms[type(layer)](layer)
        if isinstance(form, Int8Form):
            key = id(layer.shared)
            form.shared = shared.setdefault(key, SharedCodes(readers[key], form.quantize))
        found.set_submodule(name, form)
    if getattr(found, "_supports_sdpa", False):
        found.set_attn_implementation("sdpa")  # type: ignore[operator]
    return found.eval()
