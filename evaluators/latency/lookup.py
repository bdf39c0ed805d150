"""Operator times from a table, exact on its grid and interpolated within it, added up to a policy's latency."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from evaluators.latency.table import LatencyTable
from evaluators.latency.workload import (
    Operator,
    OperatorKind,
    Workload,
    fixed_operators,
    layer_operators,
    policy_operators,
    unit_operators,
)
from search_spaces.channels import ChannelUnit, CutLayer
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, Unit

WIDTH_AXES: dict[OperatorKind, tuple[str, ...]] = {
    OperatorKind.LINEAR: ("in_features", "out_features"),
    OperatorKind.QUANTIZE: ("features",),
    OperatorKind.ATTENTION_CORE: ("heads",),
    OperatorKind.ACTIVATION: ("features",),
    OperatorKind.LAYER_NORM: ("features",),
    OperatorKind.EMBEDDING: (),
    OperatorKind.CONVOLUTION: ("in_channels", "out_channels"),
    OperatorKind.DEPTHWISE: ("channels",),
    OperatorKind.STATIC_QUANTIZE: ("channels",),
    OperatorKind.DEQUANTIZE: ("channels",),
    OperatorKind.RESIDUAL_ADD: ("channels",),
}
"""Axes that pruning changes: only along these does a time lie between its neighbours' times."""


class MissingEntryError(KeyError):
    """The table has no row for an operator and none around it to interpolate between."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPrediction:
    """Predicted time of one call of the workload.

    Attributes:
        latency_ms: The prediction, corrected where the table has a correction for the workload.
        low_ms: Lower bound by the correction's error; equal to the prediction where there is no correction.
        high_ms: Upper bound, likewise.
        corrected: Whether a correction was applied.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    corrected: bool


Line = tuple[Operator, str]
"""Operators that differ along one width axis only: one of them with that axis at 0, and the axis."""


class LatencyPredictor:
    """Adds up table entries.

    Args:
        table: Measured times.
        workload: Batch and tokens of a call.
        profile_command: Command that measures what the table lacks, for messages; None writes one with the table's
            target and the workload.
    """

    def __init__(self, table: LatencyTable, workload: Workload, *, profile_command: str | None = None) -> None:
        self.workload = workload
        self.correction = table.correction(workload)
        self._command = profile_command or (
            f"paretrim profile --model MODEL --target {table.target} --batch {workload.batch} "
            f"--sequence-length {workload.sequence_length} --threads {table.fingerprint.threads} --out TABLE.json"
        )
        self._times = {entry.operator: entry.median_ms for entry in table.entries}
        self._lines: dict[Line, list[tuple[int, float]]] = defaultdict(list)
        for operator, time_ms in self._times.items():
            for axis in WIDTH_AXES[operator.kind]:
                self._lines[_line(operator, axis)].append((operator.axis(axis), time_ms))
        for points in self._lines.values():
            points.sort()
        self._units: dict[tuple[Unit, Choice], float] = {}
        self._shared: dict[tuple[Unit, tuple[Choice, ...]], float] = {}
        self._fixed: tuple[ModelStructure, float] | None = None

    def operator_ms(self, operator: Operator) -> float:
        """Return the time of one operator, without correction.

        Between two measured widths the logarithm of the time is linear in the logarithm of the width.

        Raises:
            MissingEntryError: Not measured and not between measured widths.
        """
        if (exact := self._times.get(operator)) is not None:
            return exact
        brackets = [bracket for axis in WIDTH_AXES[operator.kind] if (bracket := self._bracket(operator, axis))]
        if not brackets:
            raise MissingEntryError(self._missing([operator]))
        # Where both widths of a linear operator can be interpolated along, the closer neighbours say more.
        width, (low, low_ms), (high, high_ms) = min(brackets, key=lambda b: b[2][0] / b[1][0])
        share = math.log(width / low) / math.log(high / low)
        return math.exp((1 - share) * math.log(low_ms) + share * math.log(high_ms))

    def unit_ms(self, unit: Unit, choice: Choice) -> float:
        """Return a unit's share of a policy's latency: the sum of its operators times the correction's scale.

        The layers of a `ChannelUnit` depend on other units too. Its share is then an estimate: as if the others kept
        the same ratio, and time went with their channels.
        """
        key = (unit, choice)
        if key not in self._units:
            total = self._scale * self._sum(unit_operators(unit, choice, self.workload).items())
            self._units[key] = total * choice.keep / unit.groups if isinstance(unit, ChannelUnit) else total
        return self._units[key]

    def fixed_ms(self, structure: ModelStructure) -> float:
        """Return the share that no policy changes: scaled operators outside units, and the correction's overhead."""
        if self._fixed is None or self._fixed[0] is not structure:
            total = self._scale * self._sum(fixed_operators(structure, self.workload).items())
            self._fixed = (structure, total + (self.correction.overhead_ms if self.correction else 0.0))
        return self._fixed[1]

    def policy_ms(self, structure: ModelStructure, policy: Policy) -> float:
        """Return the latency of a policy: `fixed_ms` plus `unit_ms` of every unit that shares no layers, and the exact
        sum of the others' operators.

        Raises:
            MissingEntryError: An operator is not measured and not between measured widths.
        """
        return self.fixed_ms(structure) + sum(
            self._shared_ms(unit, policy, structure.base_format)
            if isinstance(unit, ChannelUnit)
            else self.unit_ms(unit, policy[unit.name])
            for unit in structure.units
        )

    def layer_ms(self, cut: CutLayer) -> float:
        """Return the time of a layer between channels, with what its input's format costs."""
        return self._scale * self._sum(layer_operators(cut, self.workload).items())

    def _shared_ms(self, unit: ChannelUnit, policy: Policy, base_format: str) -> float:
        key = (unit, tuple(policy[name] for name in (unit.name, *unit.inputs)))
        if key not in self._shared:
            counts = policy_operators(unit, policy, base_format, self.workload)
            self._shared[key] = self._scale * self._sum(counts.items())
        return self._shared[key]

    def raw_ms(self, structure: ModelStructure, policy: Policy) -> float:
        """Return the plain sum of operator times, to which corrections are fitted."""
        corrected = self.policy_ms(structure, policy)
        return (corrected - self.correction.overhead_ms) / self.correction.scale if self.correction else corrected

    def predict(self, structure: ModelStructure, policy: Policy) -> LatencyPrediction:
        """Return the latency of a policy with the bounds that the correction's error gives."""
        latency_ms = self.policy_ms(structure, policy)
        low, high = self.correction.interval(latency_ms) if self.correction else (latency_ms, latency_ms)
        return LatencyPrediction(latency_ms=latency_ms, low_ms=low, high_ms=high, corrected=self.correction is not None)

    def check(self, operators: Iterable[Operator]) -> None:
        """Check that the table answers for all operators.

        Raises:
            MissingEntryError: It does not; the message names the operators.
        """
        missing = []
        for operator in operators:
            try:
                self.operator_ms(operator)
            except MissingEntryError:
                missing.append(operator)
        if missing:
            raise MissingEntryError(self._missing(missing))

    @property
    def _scale(self) -> float:
        return self.correction.scale if self.correction else 1.0

    def _sum(self, counts: Iterable[tuple[Operator, int]]) -> float:
        return math.fsum(count * self.operator_ms(operator) for operator, count in counts)

    def _bracket(self, operator: Operator, axis: str) -> tuple[int, tuple[int, float], tuple[int, float]] | None:
        """The width and its measured neighbours along one axis, or None outside the grid."""
        width = operator.axis(axis)
        points = self._lines.get(_line(operator, axis), [])
        below = [point for point in points if point[0] < width]
        above = [point for point in points if point[0] > width]
        return (width, below[-1], above[0]) if below and above else None

    def _missing(self, operators: list[Operator]) -> str:
        named = "; ".join(str(operator) for operator in operators[:3])
        more = f" and {len(operators) - 3} more" if len(operators) > 3 else ""
        return (
            f"every operator of a policy has a measured time in the table or lies between two; the table lacks "
            f"{named}{more}; measure with: {self._command}"
        )


def _line(operator: Operator, axis: str) -> Line:
    axes = tuple((name, 0 if name == axis else size) for name, size in operator.axes)
    return Operator(operator.kind, axes, operator.format, operator.function), axis
