"""Linear layers that compute what the target's kernels compute.

Shape letters: B batch, O output features, K input features, N blocks of K, G columns of a block, C calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from search_spaces.formats import ActivationPrecision, Format
from workers.quantization.codes import Codes
from workers.quantization.float_linear import FLOAT_TYPES, RoundedInt4Linear, RoundedLinear
from workers.quantization.row_linear import RowFloat8Linear, RowInt8Linear

_NEGLIGIBLE = 1e-30
"""Blocks of inputs no larger than this count as zero: the inverse of their scale would overflow."""


class CallScope:
    """How many examples of the batch axis belong to one call of the deployed model.

    Kernels with dynamic activations take one range for a whole call. The evaluation stacks several calls and says here
    where one ends.

    Attributes:
        examples: Examples in one call; None takes the whole tensor as one.
    """

    def __init__(self) -> None:
        self.examples: int | None = None

    def calls(self, batch: int) -> int:
        """Number of calls in a batch axis of that length.

        Raises:
            ValueError: The calls do not fill the axis.
        """
        if self.examples is None:
            return 1
        if batch % self.examples:
            raise ValueError(
                f"stacked calls fill the batch axis; got {batch} examples in calls of {self.examples}; set "
                "CallScope.examples to a divisor, or to None for one call"
            )
        return batch // self.examples


@dataclass(frozen=True, slots=True, kw_only=True)
class _DynamicCodes:
    """An input as affine uint8, less 128.

    Attributes:
        codes_CXK: int8 where products are of integers, else float32.
        scale_C1: Step of each call.
        shift_C1: What is added to a code for 0 to stand for 0.
    """

    codes_CXK: Tensor
    scale_C1: Tensor
    shift_C1: Tensor


class SharedInput:
    """Codes of an input that several layers read one after the other, as those of queries, keys and values.

    A layer that is handed the very tensor that the one before was handed gets the same codes.

    Args:
        readers: How many layers read it; after the last of them nothing is held any more.
    """

    def __init__(self, readers: int) -> None:
        self._readers = readers
        self._input: Tensor | None = None
        self._codes: _DynamicCodes | None = None
        self._left = 0

    def codes(self, input: Tensor, calls: int, *, integers: bool) -> _DynamicCodes:
        """Quantize an input of shape (B, ..., K) with one range for each call."""
        if self._codes is None or self._input is not input or len(self._codes.scale_C1) != calls:
            self._input, self._codes, self._left = input, _dynamic_codes(input, calls, integers=integers), self._readers
        found = self._codes
        self._left -= 1
        if self._left == 0:
            self._input = self._codes = None
        return found


def _dynamic_codes(input: Tensor, calls: int, *, integers: bool) -> _DynamicCodes:
    input_CX = input.reshape(calls, -1)
    low_C1, high_C1 = torch.aminmax(input_CX, dim=1, keepdim=True)
    low_C1, high_C1 = low_C1.clamp(max=0), high_C1.clamp(min=0)
    scale_C1 = (high_C1 - low_C1) / 255
    scale_C1 = torch.where(scale_C1 > 0, scale_C1, torch.ones_like(scale_C1))
    zero_C1 = torch.clamp(torch.round(-low_C1 / scale_C1), 0, 255)
    codes_CX = (input_CX / scale_C1).round_().add_(zero_C1 - 128).clamp_(-128, 127)
    codes_CXK = codes_CX.view(calls, -1, input.shape[-1])
    return _DynamicCodes(
        codes_CXK=codes_CXK.to(torch.int8) if integers else codes_CXK, scale_C1=scale_C1, shift_C1=128 - zero_C1
    )


class DynamicInt8Linear(nn.Module):
    """Per-channel symmetric int8 weights, inputs as affine uint8 with one range for each call.

    Codes are multiplied as integers where the processor has instructions for it, with the inputs' shifted by 128 to
    signed ones. Elsewhere they are multiplied as float32 integers, which is exact too: sums stay below 2^24 for the
    widths of real layers unless nearly all products are extreme.

    Reference: operator DynamicQuantizeLinear of ONNX, opset 11.
    """

    codes_OK: Tensor
    scale_O: Tensor
    bias_O: Tensor | None
    sums_O: Tensor
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(
        self, codes: Codes, bias_O: Tensor | None, scope: CallScope, shared: SharedInput | None = None
    ) -> None:
        super().__init__()
        self.scope = scope
        self.shared = shared or SharedInput(readers=1)
        self.register_buffer("codes_OK", codes.codes_OK)
        self.register_buffer("scale_O", codes.scale_ON[:, 0])
        self.register_buffer("bias_O", bias_O)
        self.register_buffer("sums_O", codes.codes_OK.sum(1, dtype=torch.int32), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        # Of a single column torch._int_mm makes garbage: the transposed weight looks contiguous.
        integers = input.device.type == "cpu" and has_int8_products() and self.codes_OK.shape[1] > 1
        codes = self.shared.codes(input, self.scope.calls(input.shape[0]), integers=integers)
        scaled_CXO = self._products(codes).mul_(codes.scale_C1[:, :, None] * self.scale_O)
        if self.bias_O is not None:
            scaled_CXO += self.bias_O
        return scaled_CXO.view(*input.shape[:-1], -1)

    def _products(self, codes: _DynamicCodes) -> Tensor:
        """(codes + shift) W^T, whole numbers as float32."""
        shift_C11, codes_CXK = codes.shift_C1[:, :, None], codes.codes_CXK
        if codes_CXK.dtype is not torch.int8:
            return nn.functional.linear(codes_CXK + shift_C11, self.codes_OK.float())
        sums_CXO = torch._int_mm(codes_CXK.flatten(0, 1), self.codes_OK.t()).view(*codes_CXK.shape[:-1], -1)
        return sums_CXO.add_(shift_C11.int() * self.sums_O).float()


@lru_cache(maxsize=1)
def has_int8_products() -> bool:
    """Whether products of int8 matrices are exact and fast here: not so on processors without VNNI instructions."""
    return bool(torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported())  # type: ignore[no-untyped-call]


def round_blocks(input: Tensor, block: int) -> Tensor:
    """Round an input of shape (..., K) to the values of symmetric int8 codes, one scale for each row and block of K."""
    columns = input.shape[-1]
    padded = nn.functional.pad(input, (0, -columns % block)) if columns % block else input
    blocks_NG = padded.view(*padded.shape[:-1], -1, block)
    largest_N1 = blocks_NG.abs().amax(-1, keepdim=True)
    inverse_N1 = torch.where(largest_N1 > _NEGLIGIBLE, 127 / largest_N1, torch.zeros_like(largest_N1))
    return (blocks_NG * inverse_N1).round_().mul_(largest_N1 / 127).flatten(-2)[..., :columns]


class BlockInt4Linear(nn.Module):
    """Affine 4-bit weights in blocks, inputs as symmetric int8 with one scale for each row and block.

    Reference: operator MatMulNBits of ONNX Runtime's contributed operators, accuracy_level 4.
    """

    codes_OK: Tensor
    scale_ON: Tensor
    zeros_ON: Tensor
    bias_O: Tensor | None
    weight_OK: Tensor
    weight: None = None
    """There is no such tensor; T5 asks for its type."""

    def __init__(self, codes: Codes, bias_O: Tensor | None) -> None:
        super().__init__()
        self.in_features = codes.codes_OK.shape[1]
        self.block = codes.block
        self.register_buffer("codes_OK", codes.codes_OK)
        self.register_buffer("scale_ON", codes.scale_ON)
        self.register_buffer("zeros_ON", codes.zeros_ON)
        self.register_buffer("bias_O", bias_O)
        self.register_buffer("weight_OK", codes.dequantize(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply; shape (..., K) to (..., O)."""
        return nn.functional.linear(round_blocks(input, self.block), self.weight_OK, self.bias_O)


class ConstantBranch(nn.Module):
    """What a residual branch adds when none of its groups stay: a constant, whatever the input.

    Args:
        bias_O: The constant, shape (O,).
        returns_tuple: Whether to return (constant, None), as attention modules do.
    """

    bias_O: Tensor

    def __init__(self, bias_O: Tensor, *, returns_tuple: bool = False) -> None:
        super().__init__()
        self.register_buffer("bias_O", bias_O)
        self.returns_tuple = returns_tuple

    def forward(self, *_inputs: object, **_others: object) -> Tensor | tuple[Tensor, None]:
        """Return the constant, which broadcasts over batch and sequence."""
        return (self.bias_O, None) if self.returns_tuple else self.bias_O


class UnreadNorm(nn.Module):
    """A normalisation whose output nobody reads, as its branch is left out: it passes its input on.

    Its parameters stay where they were, so that files and plain loaders find all that the dense model has.

    Args:
        norm: The normalisation.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(parameter.detach(), requires_grad=False))

    def forward(self, input: Tensor) -> Tensor:
        """Return the input, which the constant after it ignores."""
        return input


class Bypass(nn.Module):
    """Stands for the part of a branch before its output projection when none of its groups stay.

    Args:
        returns_tuple: Whether to return (input, None), as attention modules do.
    """

    def __init__(self, *, returns_tuple: bool) -> None:
        super().__init__()
        self.returns_tuple = returns_tuple

    def forward(self, input: Tensor, *_inputs: object, **_others: object) -> Tensor | tuple[Tensor, None]:
        """Return the input, which the constant after it ignores."""
        return (input, None) if self.returns_tuple else input


def make_linear(
    tensors: Mapping[str, Tensor],
    target: Format,
    *,
    in_features: int,
    scope: CallScope,
    shared: SharedInput | None = None,
) -> nn.Module:
    """Build the layer of a format from its stored tensors.

    Args:
        tensors: "weight" (not quantized), or "codes", "scale" and "zeros"; "bias" where there is one.
        target: The format.
        in_features: Columns of the weight.
        scope: Where one call ends, shared by all layers of a model.
        shared: Shared by layers that read the same input; None where there is but one.
    """
    bias_O = tensors.get("bias")
    if target.activation in FLOAT_TYPES and not target.is_quantized:
        return RoundedLinear(tensors["weight"], bias_O, FLOAT_TYPES[target.activation])
    if not target.is_quantized:
        weight_OK = tensors["weight"]
        linear = nn.Linear(weight_OK.shape[1], weight_OK.shape[0], bias=bias_O is not None, device="meta")
        linear.weight = nn.Parameter(weight_OK, requires_grad=False)
        if bias_O is not None:
            linear.bias = nn.Parameter(bias_O, requires_grad=False)
        return linear
    block = in_features if target.group_size is None else target.group_size
    codes = Codes(codes_OK=tensors["codes"], scale_ON=tensors["scale"], zeros_ON=tensors.get("zeros"), block=block)
    if target.activation is ActivationPrecision.INT8_PER_TENSOR:
        return DynamicInt8Linear(codes, bias_O, scope, shared)
    if target.activation is ActivationPrecision.INT8_PER_ROW:
        return RowInt8Linear(codes, bias_O)
    if target.activation is ActivationPrecision.FLOAT8_PER_ROW:
        return RowFloat8Linear(codes, bias_O)
    if target.activation is ActivationPrecision.BFLOAT16:
        return RoundedInt4Linear(codes, bias_O)
    return BlockInt4Linear(codes, bias_O)
