"""What a policy executes: the operators of its units and fixed parts, with shapes and tokens."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from search_spaces.channels import ChannelLayerKind, ChannelUnit, CutLayer, cut_layer
from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Choice, Policy
from search_spaces.units import FixedPart, ModelStructure, PartKind, Unit, UnitKind

_BASE_FORMAT = "fp32"
_GATED, _JOINED = "gated_", "joined_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One call of the deployed model.

    Attributes:
        batch: Examples in the call.
        sequence_length: Tokens of one example.
    """

    batch: int
    sequence_length: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.sequence_length < 1:
            raise ValueError(
                "a workload has at least one example of one token; "
                f"got batch={self.batch}, sequence_length={self.sequence_length}"
            )

    @property
    def tokens(self) -> int:
        """Tokens in the call."""
        return self.batch * self.sequence_length


class OperatorKind(StrEnum):
    """What an operator computes."""

    LINEAR = "linear"
    """Matrix product with bias; axes tokens, in_features, out_features. An int8 input is already quantized."""
    QUANTIZE = "quantize"
    """Range, scale and codes of an activation; axes tokens, features."""
    ATTENTION_CORE = "attention_core"
    """Scores, softmax and weighted values; axes batch, sequence, heads, queries, head_dim. `heads` counts key-value
    heads and `queries` the query heads that share one."""
    ACTIVATION = "activation"
    """A function of each element, for a gated one together with the product; axes tokens, features."""
    LAYER_NORM = "layer_norm"
    """Residual addition and layer normalisation; axes tokens, features."""
    RMS_NORM = "rms_norm"
    """Residual addition and normalisation by the root mean square; axes tokens, features."""
    HEAD_NORM = "head_norm"
    """Normalisation of each head by its root mean square; axes batch, sequence, heads, head_dim."""
    ROTARY = "rotary"
    """Positions rotated into queries or keys; axes batch, sequence, heads, head_dim, and columns that are rotated."""
    POSITIONS = "positions"
    """Causal mask, and cosines and sines of positions; axes batch, sequence, columns."""
    EMBEDDING = "embedding"
    """Rows looked up, and scaled where they are codes; axes tokens, rows, features."""
    CONVOLUTION = "convolution"
    """Convolution with bias; axes batch, in_channels, out_channels, kernel, stride, and height and width of the output.
    Static int8 codes come in and go out."""
    DEPTHWISE = "depthwise"
    """Convolution of each channel by itself; axes batch, channels, kernel, stride, height and width of the output."""
    STATIC_QUANTIZE = "static_quantize"
    """Codes of a feature map with a known scale; axes batch, channels, height, width."""
    DEQUANTIZE = "dequantize"
    """Values of a feature map's codes; axes batch, channels, height, width."""
    RESIDUAL_ADD = "residual_add"
    """Sum of two feature maps with its activation; axes batch, channels, height, width. In float32 it is part of the
    convolution before it."""


_MAP = ("batch", "height", "width")
_CONVOLUTION = (*_MAP, "kernel", "stride")
_HEADS = ("batch", "sequence", "heads")

AXIS_NAMES: dict[OperatorKind, tuple[str, ...]] = {
    OperatorKind.LINEAR: ("tokens", "in_features", "out_features"),
    OperatorKind.QUANTIZE: ("tokens", "features"),
    OperatorKind.ATTENTION_CORE: ("batch", "sequence", "heads", "queries", "head_dim"),
    OperatorKind.ACTIVATION: ("tokens", "features"),
    OperatorKind.LAYER_NORM: ("tokens", "features"),
    OperatorKind.RMS_NORM: ("tokens", "features"),
    OperatorKind.HEAD_NORM: (*_HEADS, "head_dim"),
    OperatorKind.ROTARY: (*_HEADS, "head_dim", "columns"),
    OperatorKind.POSITIONS: ("batch", "sequence", "columns"),
    OperatorKind.EMBEDDING: ("tokens", "rows", "features"),
    OperatorKind.CONVOLUTION: (*_CONVOLUTION, "in_channels", "out_channels"),
    OperatorKind.DEPTHWISE: (*_CONVOLUTION, "channels"),
    OperatorKind.STATIC_QUANTIZE: (*_MAP, "channels"),
    OperatorKind.DEQUANTIZE: (*_MAP, "channels"),
    OperatorKind.RESIDUAL_ADD: (*_MAP, "channels"),
}
"""Axes of an operator of each kind."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel call of one shape: what a row of a latency table is about.

    Attributes:
        kind: What is computed.
        axes: Names and sizes, sorted by name.
        format: Number format of a linear operator or convolution, or of a table of codes; None for others.
        function: Name of an activation function, "gated_" before it where it multiplies a second input, and "joined_"
            before that where one tensor holds both inputs; of a rotation "neighbours" or "halves", the columns that
            make a pair; of an attention core "causal" where tokens see earlier ones alone; else None.
    """

    kind: OperatorKind
    axes: tuple[tuple[str, int], ...]
    format: str | None = None
    function: str | None = None

    @classmethod
    def of(
        cls, kind: OperatorKind, *, format: str | None = None, function: str | None = None, **axes: int
    ) -> "Operator":
        """Make an operator with its axes as keywords."""
        return cls(kind, tuple(sorted(axes.items())), format, function)

    def axis(self, name: str) -> int:
        """Return the size along one axis."""
        return dict(self.axes)[name]

    @property
    def family(self) -> str:
        """The kind with its format or function, in words."""
        return " ".join(word for word in (self.kind.value, self.format, self.function) if word)

    def __str__(self) -> str:
        return " ".join([self.family, *(f"{name}={size}" for name, size in self.axes)])


def activation_of(operator: Operator) -> tuple[str, bool, bool]:
    """Read the function of an `ACTIVATION`: its name, whether it is gated, and whether its two inputs are joined."""
    function = str(operator.function)
    gated = function.removeprefix(_JOINED)
    return gated.removeprefix(_GATED), gated.startswith(_GATED), function.startswith(_JOINED)


def unit_operators(unit: Unit, choice: Choice, workload: Workload) -> Counter[Operator]:
    """Operators of one unit under one choice, with how often each runs; none where the unit is left out.

    Layers between channels depend on other units too; here those are whole and in the same format.
    """
    if choice.keep == 0:
        return Counter()
    if isinstance(unit, ChannelUnit):
        return _channel_operators(unit, choice, _beside_whole(unit, choice), workload)
    if unit.kind is UnitKind.EMBEDDING:
        return Counter([_embedding(unit, choice, workload)])
    found = Counter(
        Operator.of(
            OperatorKind.LINEAR,
            format=choice.format,
            tokens=workload.tokens,
            in_features=in_features,
            out_features=out_features,
        )
        for _, out_features, in_features in unit.layer_shapes(choice.keep)
    )
    found.update(_middle(unit, choice.keep, workload))
    if unit.branch is not None and unit.branch.norm is not None:
        found[_norm(unit.branch.norm_kind, workload.tokens, unit.in_features)] += 1
    if FORMATS.get(choice.format).activation is ActivationPrecision.INT8_PER_TENSOR:
        inputs = len({producer.input_index for producer in unit.producers})
        for features in (*[unit.in_features] * inputs, choice.keep * unit.columns_per_group):
            found[Operator.of(OperatorKind.QUANTIZE, tokens=workload.tokens, features=features)] += 1
    return found


def _embedding(unit: Unit, choice: Choice, workload: Workload) -> Operator:
    is_quantized = FORMATS.get(choice.format).is_quantized
    return Operator.of(
        OperatorKind.EMBEDDING,
        format=choice.format if is_quantized else None,
        tokens=workload.tokens,
        rows=unit.out_features,
        features=unit.in_features,
    )


def _middle(unit: Unit, keep: int, workload: Workload) -> Counter[Operator]:
    """What lies between the producers and the consumer."""
    if unit.kind is UnitKind.ATTENTION:
        return _attention(unit, keep, workload)
    gated = _GATED if unit.is_gated else ""
    joined = _JOINED if unit.is_gated and len(unit.producers) == 1 else ""
    activation = Operator.of(
        OperatorKind.ACTIVATION,
        function=f"{joined}{gated}{unit.activation}",
        tokens=workload.tokens,
        features=keep * unit.columns_per_group,
    )
    return Counter([activation])


def _attention(unit: Unit, keep: int, workload: Workload) -> Counter[Operator]:
    head_dim = min(producer.rows_per_group for producer in unit.producers)
    queries = unit.columns_per_group // head_dim
    of = partial(Operator.of, batch=workload.batch, sequence=workload.sequence_length, head_dim=head_dim)
    function = "causal" if unit.causal else None
    found = Counter([of(OperatorKind.ATTENTION_CORE, function=function, heads=keep, queries=queries)])
    for heads in (keep * queries, keep):
        if unit.normalizes_heads:
            found[of(OperatorKind.HEAD_NORM, heads=heads)] += 1
        if unit.rotation is not None:
            function = "neighbours" if unit.rotation.neighbours else "halves"
            found[of(OperatorKind.ROTARY, function=function, heads=heads, columns=unit.rotation.columns)] += 1
    return found


def _norm(kind: PartKind, tokens: int, features: int) -> Operator:
    operator = OperatorKind.RMS_NORM if kind is PartKind.RMS_NORM else OperatorKind.LAYER_NORM
    return Operator.of(operator, tokens=tokens, features=features)


def fixed_operators(structure: ModelStructure, workload: Workload, policy: Policy | None = None) -> Counter[Operator]:
    """Operators of everything outside units, with how often each runs.

    Args:
        structure: Units and fixed parts.
        workload: Batch and tokens.
        policy: Leaves out the parts that none of its units reads; None counts all.
    """
    found: Counter[Operator] = Counter()
    for part in fixed_parts(structure, policy):
        found[_fixed_operator(part, structure.base_format, workload)] += part.count
    return found


def fixed_parts(structure: ModelStructure, policy: Policy | None) -> tuple[FixedPart, ...]:
    """Fixed parts that something of a policy's model reads (`FixedPart.only_for`); all of them without a policy."""
    if policy is None:
        return structure.fixed
    kinds = {part.only_for for part in structure.fixed} - {None}
    unread = {k for k in kinds if all(policy[unit.name].keep == 0 for unit in structure.units if unit.kind is k)}
    return tuple(part for part in structure.fixed if part.only_for not in unread)


def _fixed_operator(part: FixedPart, base_format: str, workload: Workload) -> Operator:
    tokens = workload.tokens if part.per_token else workload.batch
    match part.kind:
        case PartKind.LINEAR:
            in_features, out_features = part.width
            return Operator.of(
                OperatorKind.LINEAR,
                format=base_format,
                tokens=tokens,
                in_features=in_features,
                out_features=out_features,
            )
        case PartKind.LAYER_NORM | PartKind.RMS_NORM:
            (features,) = part.width
            return _norm(part.kind, tokens, features)
        case PartKind.POSITIONS:
            (columns,) = part.width
            return Operator.of(
                OperatorKind.POSITIONS, batch=workload.batch, sequence=workload.sequence_length, columns=columns
            )
        case PartKind.EMBEDDING:
            rows, features = part.width
            return Operator.of(OperatorKind.EMBEDDING, tokens=tokens, rows=rows, features=features)
        case PartKind.CONVOLUTION:
            in_channels, out_channels, kernel, image_size = part.width
            return Operator.of(
                OperatorKind.CONVOLUTION,
                batch=workload.batch,
                in_channels=in_channels,
                out_channels=out_channels,
                kernel=kernel,
                stride=kernel,
                height=image_size // kernel,
                width=image_size // kernel,
                format=base_format,
            )


def operators(structure: ModelStructure, policy: Policy, workload: Workload) -> Counter[Operator]:
    """Operators of a whole model under a policy, with how often each runs.

    Args:
        structure: Units and fixed parts.
        policy: A choice for every unit.
        workload: Batch and tokens.
    """
    found = fixed_operators(structure, workload, policy)
    for unit in structure.units:
        found.update(policy_operators(unit, policy, structure.base_format, workload))
    return found


def policy_operators(unit: Unit, policy: Policy, base_format: str, workload: Workload) -> Counter[Operator]:
    """Operators of one unit under a policy: its own choice, and those of `unit.inputs` where it shares layers."""
    if isinstance(unit, ChannelUnit):
        return _channel_operators(unit, policy[unit.name], unit.cut(policy, base_format), workload)
    return unit_operators(unit, policy[unit.name], workload)


def _beside_whole(unit: ChannelUnit, choice: Choice) -> Iterator[CutLayer]:
    for layer in unit.channel_layers:
        rows = choice if layer.rows == unit.name else None
        columns = None if layer.columns is None else Choice(layer.in_channels, choice.format)
        yield cut_layer(layer, rows, choice if layer.columns == unit.name else columns, _BASE_FORMAT)


def _channel_operators(
    unit: ChannelUnit, choice: Choice, layers: Iterable[CutLayer], workload: Workload
) -> Counter[Operator]:
    found: Counter[Operator] = Counter()
    for cut in layers:
        found.update(layer_operators(cut, workload))
    found.update(sum_operators(unit, choice, workload))
    return found


def sum_operators(unit: ChannelUnit, choice: Choice, workload: Workload) -> Counter[Operator]:
    """Operators of the residual sums of a unit's feature maps; in float32 they are part of the convolution before."""
    found: Counter[Operator] = Counter()
    for total in unit.sums if _is_static(choice.format) else ():
        axes = {"batch": workload.batch, "channels": choice.keep, "height": total.height, "width": total.width}
        if total.activation_module is None:
            found[Operator.of(OperatorKind.STATIC_QUANTIZE, format=None, function=None, **axes)] += 1
        found[Operator.of(OperatorKind.RESIDUAL_ADD, format=choice.format, function=None, **axes)] += 1
    return found


def layer_operators(cut: CutLayer, workload: Workload) -> Counter[Operator]:
    """Operators of a layer between channels: itself, and its input to codes or back where the formats differ."""
    layer, batch = cut.layer, workload.batch
    if cut.out_channels == 0 or cut.in_channels == 0:
        return Counter()
    is_depthwise = layer.kind is ChannelLayerKind.DEPTHWISE
    if layer.kind is ChannelLayerKind.LINEAR:
        kind = OperatorKind.LINEAR
        axes = {"tokens": batch, "in_features": cut.in_channels, "out_features": cut.out_channels}
        return Counter([Operator.of(kind, format=cut.format, function=None, **axes)])
    kind = OperatorKind.DEPTHWISE if is_depthwise else OperatorKind.CONVOLUTION
    axes = {"batch": batch, "kernel": layer.kernel, "stride": layer.stride}
    axes |= {"height": layer.height, "width": layer.width}
    if is_depthwise:
        axes["channels"] = cut.out_channels
    else:
        axes |= {"in_channels": cut.in_channels, "out_channels": cut.out_channels}
    found = Counter([Operator.of(kind, format=cut.format, function=None, **axes)])
    if _is_static(cut.format) != _is_static(cut.input_format):
        recode = OperatorKind.STATIC_QUANTIZE if _is_static(cut.format) else OperatorKind.DEQUANTIZE
        channels = cut.out_channels if is_depthwise else cut.in_channels
        height, width = layer.height * layer.stride, layer.width * layer.stride
        found[Operator.of(recode, batch=batch, channels=channels, height=height, width=width)] += 1
    return found


def _is_static(format_name: str | None) -> bool:
    return format_name is not None and FORMATS.get(format_name).activation is ActivationPrecision.INT8_STATIC
