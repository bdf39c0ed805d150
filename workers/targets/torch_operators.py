"""One operator as calls of torch modules: what a model in torch runs for it, several times with other weights.

Shapes: B batch, S sequence, T tokens, K in_features, O out_features, H heads, D head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.latency.workload import Operator, OperatorKind, activation_of
from search_spaces.formats import FORMATS, ActivationPrecision, Format
from search_spaces.registry import Registry
from workers.export.onnx_positions import causal_mask
from workers.export.torch_layers import Forms, Int8Form
from workers.quantization.embedding import make_embedding
from workers.quantization.float_linear import FLOAT_TYPES
from workers.quantization.linear import CallScope, DynamicInt8Linear, make_linear
from workers.targets.device import KernelError

MAX_DRAWN = 2**20


@dataclass(frozen=True, slots=True)
class Call:
    """What runs an operator once.

    Attributes:
        function: A function or module. Those of two copies of an operator differ in nothing but their tensors, so that
            a compiler can take one for the other.
        inputs: What it is called with: tensors, and tuples of tensors and numbers.
    """

    function: Callable[..., object]
    inputs: tuple[Any, ...]

    def __call__(self) -> object:
        """Run it."""
        return self.function(*self.inputs)


@dataclass(slots=True, kw_only=True)
class Draw:
    """Random weights and inputs on a device; inputs of one name are drawn once and read by all copies.

    Attributes:
        generator: Source of numbers, on the CPU.
        device: Where the tensors go.
        forms: Layers with the device's kernels.
    """

    generator: torch.Generator
    device: torch.device
    forms: Forms
    inputs: dict[str, Tensor] = field(default_factory=dict)

    def normal(self, *shape: int) -> Tensor:
        """Draw float32 values; a large tensor repeats the first ones, as no kernel's time depends on them."""
        size = math.prod(shape)
        drawn = torch.randn(min(size, MAX_DRAWN), generator=self.generator)
        return drawn.repeat(math.ceil(size / len(drawn)))[:size].view(shape).to(self.device)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype) -> Tensor:
        """Draw integers from `low` to `high` - 1."""
        return torch.randint(low, high, shape, generator=self.generator, dtype=dtype).to(self.device)

    def input(self, name: str, *shape: int) -> Tensor:
        """An input of normal values."""
        if name not in self.inputs:
            self.inputs[name] = self.normal(*shape)
        return self.inputs[name]

    def hidden(self, operator: Operator, axis: str, name: str = "x") -> Tensor:
        """An input of shape (1, T, axis)."""
        return self.input(name, 1, operator.axis("tokens"), operator.axis(axis))


BUILDERS: Registry[Callable[[Draw, Operator], Call]] = Registry("torch operator")


def build_calls(operator: Operator, *, copies: int, seed: int, device: torch.device, forms: Forms) -> tuple[Call, ...]:
    """Return calls that each run an operator, with distinct weights.

    Args:
        operator: What to run.
        copies: How many times.
        seed: Seed of weights and inputs.
        device: Where it runs.
        forms: Layers with the device's kernels.

    Raises:
        KernelError: The device has no kernel for the operator.
    """
    if operator.kind.value not in BUILDERS:
        raise KernelError(
            f"torch runs feature maps in float32 only; got the operator {operator}; leave int8 convolutions ('w8a8s') "
            "to a target that lists them (`paretrim targets`)"
        )
    draw = Draw(generator=torch.Generator().manual_seed(seed), device=device, forms=forms)
    build = BUILDERS.get(operator.kind.value)
    return tuple(build(draw, operator) for _ in range(copies))


def _refuse_format(operator: Operator) -> KernelError:
    return KernelError(
        f"the target has a kernel for every format that it lists; it has none for {operator}; take a format of "
        "`paretrim targets`"
    )


@BUILDERS.register(OperatorKind.LINEAR.value)
def _linear(draw: Draw, operator: Operator) -> Call:
    target = FORMATS.get(str(operator.format))
    tensors = _weights(draw, target, operator.axis("out_features"), operator.axis("in_features"))
    layer = make_linear(tensors, target, in_features=operator.axis("in_features"), scope=CallScope())
    if type(layer) is not nn.Linear:
        if type(layer) not in draw.forms:
            raise _refuse_format(operator)
        layer = draw.forms[type(layer)](layer)
    input = draw.hidden(operator, "in_features")
    if isinstance(layer, Int8Form):
        # `QUANTIZE` has made the codes.
        return Call(_Multiply(layer), (layer.quantize(input),))
    return Call(layer, (input,))


@dataclass(frozen=True)
class _Multiply:
    """Products of codes."""

    layer: Int8Form[Any]

    def __call__(self, codes: Any) -> Tensor:
        return self.layer.multiply(codes)


def _weights(draw: Draw, target: Format, rows: int, columns: int) -> dict[str, Tensor]:
    """Stored tensors of a linear layer in a format."""
    bias = {"bias": draw.normal(rows)}
    if not target.is_quantized:
        return {"weight": draw.normal(rows, columns).to(FLOAT_TYPES.get(target.activation, torch.float32)), **bias}
    blocks = 1 if target.group_size is None else math.ceil(columns / target.group_size)
    scale = {"scale": draw.normal(rows, blocks).abs() + 1e-3}
    if target.is_float8:
        return {"codes": draw.normal(rows, columns).to(torch.float8_e4m3fn), **scale, **bias}
    if target.symmetric:
        return {"codes": draw.integers(-127, 128, rows, columns, dtype=torch.int8), **scale, **bias}
    levels = 2**target.weight_bits
    zeros = {"zeros": draw.integers(0, levels, rows, blocks, dtype=torch.uint8)}
    return {"codes": draw.integers(0, levels, rows, columns, dtype=torch.uint8), **scale, **zeros, **bias}


@BUILDERS.register(OperatorKind.QUANTIZE.value)
def _quantize(draw: Draw, operator: Operator) -> Call:
    form = draw.forms.get(DynamicInt8Linear)
    if not (isinstance(form, type) and issubclass(form, Int8Form)):
        raise _refuse_format(operator)
    return Call(form.quantize, (draw.hidden(operator, "features"),))


@BUILDERS.register(OperatorKind.ATTENTION_CORE.value)
def _attention_core(draw: Draw, operator: Operator) -> Call:
    batch, sequence, heads, queries, head_dim = (
        operator.axis(a) for a in ("batch", "sequence", "heads", "queries", "head_dim")
    )
    inputs = tuple(
        draw.input(name, batch, sequence, count * head_dim)
        for name, count in (("query", heads * queries), ("key", heads), ("value", heads))
    )
    return Call(_Attend(head_dim=head_dim, grouped=queries > 1, causal=operator.function == "causal"), inputs)


@dataclass(frozen=True, kw_only=True)
class _Attend:
    """Scaled dot-product attention between projections."""

    head_dim: int
    grouped: bool
    causal: bool

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed_BHSD = nn.functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), enable_gqa=self.grouped, is_causal=self.causal
        )
        return mixed_BHSD.transpose(1, 2).contiguous().reshape(*query.shape)

    def _split(self, flat: Tensor) -> Tensor:
        """(B, S, H*D) to (B, H, S, D)."""
        return flat.view(*flat.shape[:2], -1, self.head_dim).transpose(1, 2)


@BUILDERS.register(OperatorKind.ACTIVATION.value)
def _activation(draw: Draw, operator: Operator) -> Call:
    from transformers.activations import ACT2FN

    name, gated, joined = activation_of(operator)
    if name not in ACT2FN:
        raise KernelError(
            f"activation functions are those of transformers ({', '.join(sorted(ACT2FN))}); got {name!r}; leave the "
            "unit out of the space"
        )
    function = ACT2FN[name]
    if joined:
        both = draw.input("both", 1, operator.axis("tokens"), 2 * operator.axis("features"))
        return Call(_Joined(function), (both,))
    input = draw.hidden(operator, "features")
    if not gated:
        return Call(function, (input,))
    return Call(_Gated(function), (input, draw.hidden(operator, "features", "gate")))


@dataclass(frozen=True)
class _Gated:
    """An activation, times a second input."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, input: Tensor, gate: Tensor) -> Tensor:
        return self.function(input) * gate


@dataclass(frozen=True)
class _Joined:
    """An activation of the first half of the columns, times the second."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, both: Tensor) -> Tensor:
        input, gate = both.chunk(2, dim=-1)
        return self.function(input) * gate


@BUILDERS.register(OperatorKind.LAYER_NORM.value)
def _layer_norm(draw: Draw, operator: Operator) -> Call:
    norm = nn.LayerNorm(operator.axis("features"), eps=1e-5, device=draw.device)
    return Call(_AddNorm(norm), (draw.hidden(operator, "features"), draw.hidden(operator, "features", "residual")))


@BUILDERS.register(OperatorKind.RMS_NORM.value)
def _rms_norm(draw: Draw, operator: Operator) -> Call:
    norm = _RootMeanSquare(draw.normal(operator.axis("features")))
    return Call(_AddNorm(norm), (draw.hidden(operator, "features"), draw.hidden(operator, "features", "residual")))


@BUILDERS.register(OperatorKind.HEAD_NORM.value)
def _head_norm(draw: Draw, operator: Operator) -> Call:
    heads = draw.input("heads", *(operator.axis(axis) for axis in ("batch", "sequence", "heads", "head_dim")))
    return Call(_RootMeanSquare(draw.normal(operator.axis("head_dim"))), (heads,))


@BUILDERS.register(OperatorKind.ROTARY.value)
def _rotary(draw: Draw, operator: Operator) -> Call:
    heads = draw.input("heads", *(operator.axis(axis) for axis in ("batch", "heads", "sequence", "head_dim")))
    angles = [draw.input(name, 1, operator.axis("sequence"), operator.axis("columns")) for name in ("cos", "sin")]
    return Call(_Rotate(neighbours=operator.function == "neighbours"), (heads, *angles))


@BUILDERS.register(OperatorKind.POSITIONS.value)
def _positions(draw: Draw, operator: Operator) -> Call:
    tokens = torch.ones(operator.axis("batch"), operator.axis("sequence"), dtype=torch.int64, device=draw.device)
    return Call(_Positions(draw.normal(operator.axis("columns") // 2)), (tokens,))


@dataclass(frozen=True)
class _RootMeanSquare:
    """Normalisation as transformers writes it (arXiv:1910.07467, equation 4)."""

    gain: Tensor

    def __call__(self, input: Tensor) -> Tensor:
        return self.gain * (input * torch.rsqrt(input.pow(2).mean(-1, keepdim=True) + 1e-6))


@dataclass(frozen=True, kw_only=True)
class _Rotate:
    """Rotation of the first columns of heads as transformers writes it: of (B, H, S, D) by angles (1, S, columns)."""

    neighbours: bool

    def __call__(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        cos, sin, columns = cos[:, None], sin[:, None], cos.shape[-1]
        turned, passed = heads[..., :columns], heads[..., columns:]
        if self.neighbours:
            cos, sin = (angle[..., : columns // 2].repeat_interleave(2, dim=-1) for angle in (cos, sin))
            across = torch.stack((-turned[..., 1::2], turned[..., 0::2]), dim=-1).flatten(-2)
        else:
            across = torch.cat((-turned[..., columns // 2 :], turned[..., : columns // 2]), dim=-1)
        return torch.cat((turned * cos + across * sin, passed), dim=-1)


@dataclass(frozen=True)
class _Positions:
    """Causal mask of tokens (B, S), and cosines and sines of their positions."""

    frequencies: Tensor

    def __call__(self, tokens: Tensor) -> tuple[Tensor, ...]:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        angles = (places[None, :, None] * self.frequencies).repeat(1, 1, 2)
        return causal_mask(tokens, torch.float32), angles.cos(), angles.sin()


@dataclass(frozen=True)
class _AddNorm:
    """Normalisation of a residual sum."""

    norm: Callable[[Tensor], object]

    def __call__(self, input: Tensor, residual: Tensor) -> object:
        return self.norm(input + residual)


@BUILDERS.register(OperatorKind.EMBEDDING.value)
def _embedding(draw: Draw, operator: Operator) -> Call:
    rows, features = operator.axis("rows"), operator.axis("features")
    ids = draw.integers(0, rows, 1, operator.axis("tokens"), dtype=torch.int64)
    if operator.format is None:
        tensors = {"weight": draw.normal(rows, features)}
    else:
        codes = draw.integers(-127, 128, rows, features, dtype=torch.int8)
        tensors = {"codes": codes, "scale": draw.normal(rows, 1)}
    table = make_embedding(tensors, FORMATS.get(operator.format or "fp32"))
    return Call(table, (ids,))


@BUILDERS.register(OperatorKind.CONVOLUTION.value, OperatorKind.DEPTHWISE.value)
def _convolution(draw: Draw, operator: Operator) -> Call:
    """Convolution over an input that gives the output's size without padding."""
    if FORMATS.get(str(operator.format)).activation is not ActivationPrecision.NONE:
        raise _refuse_format(operator)
    kernel, stride = operator.axis("kernel"), operator.axis("stride")
    height, width = ((operator.axis(a) - 1) * stride + kernel for a in ("height", "width"))
    depthwise = operator.kind is OperatorKind.DEPTHWISE
    channels_in, channels_out = (
        operator.axis("channels" if depthwise else name) for name in ("in_channels", "out_channels")
    )
    groups = channels_out if depthwise else 1
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride=stride, groups=groups, device="meta")
    layer.weight = nn.Parameter(draw.normal(*layer.weight.shape))
    layer.bias = nn.Parameter(draw.normal(channels_out))
    pixels = draw.input("pixels", operator.axis("batch"), channels_in, height, width)
    return Call(layer, (pixels,))
