"""What a policy executes: the operators of its units and fixed parts, with shapes and tokens."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Choice, Policy
from search_spaces.units import FixedPart, ModelStructure, PartKind, Unit, UnitKind


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
    EMBEDDING = "embedding"
    """Rows looked up; axes tokens, rows, features."""
    CONVOLUTION = "convolution"
    """Patches projected, stride equal to the kernel; axes batch, in_channels, out_channels, kernel, image_size."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel call of one shape: what a row of a latency table is about.

    Attributes:
        kind: What is computed.
        axes: Names and sizes, sorted by name.
        format: Number format of a linear operator; None for others.
        function: Name of an activation function, "gated_" before it where it multiplies a second input; else None.
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

    def __str__(self) -> str:
        words = [self.kind.value, self.format, self.function, *(f"{name}={size}" for name, size in self.axes)]
        return " ".join(word for word in words if word)


def unit_operators(unit: Unit, choice: Choice, workload: Workload) -> Counter[Operator]:
    """Operators of one unit under one choice, with how often each runs; none where the unit is left out."""
    if choice.keep == 0:
        return Counter()
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
    found[_middle(unit, choice.keep, workload)] += 1
    if FORMATS.get(choice.format).activation is ActivationPrecision.INT8_PER_TENSOR:
        for features in (unit.in_features, choice.keep * unit.columns_per_group):
            found[Operator.of(OperatorKind.QUANTIZE, tokens=workload.tokens, features=features)] += 1
    return found


def _middle(unit: Unit, keep: int, workload: Workload) -> Operator:
    """What lies between the producers and the consumer."""
    if unit.kind is UnitKind.ATTENTION:
        head_dim = min(producer.rows_per_group for producer in unit.producers)
        return Operator.of(
            OperatorKind.ATTENTION_CORE,
            batch=workload.batch,
            sequence=workload.sequence_length,
            heads=keep,
            queries=unit.columns_per_group // head_dim,
            head_dim=head_dim,
        )
    gated = "gated_" if len(unit.producers) > 1 else ""
    return Operator.of(
        OperatorKind.ACTIVATION,
        function=f"{gated}{unit.activation}",
        tokens=workload.tokens,
        features=keep * unit.columns_per_group,
    )


def fixed_operators(structure: ModelStructure, workload: Workload) -> Counter[Operator]:
    """Operators of everything outside units, with how often each runs."""
    found: Counter[Operator] = Counter()
    for part in structure.fixed:
        found[_fixed_operator(part, structure.base_format, workload)] += part.count
    return found


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
        case PartKind.LAYER_NORM:
            (features,) = part.width
            return Operator.of(OperatorKind.LAYER_NORM, tokens=tokens, features=features)
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
                image_size=image_size,
            )


def operators(structure: ModelStructure, policy: Policy, workload: Workload) -> Counter[Operator]:
    """Operators of a whole model under a policy, with how often each runs.

    Args:
        structure: Units and fixed parts.
        policy: A choice for every unit.
        workload: Batch and tokens.
    """
    found = fixed_operators(structure, workload)
    for unit in structure.units:
        found.update(unit_operators(unit, policy[unit.name], workload))
    return found
