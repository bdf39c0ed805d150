"""Operator times from a table, exact on its grid and interpolated within it, added up to a policy's latency."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from evaluators.latency.interpolation import GridTime, TimeGrid
from evaluators.latency.table import LatencyTable
from evaluators.latency.workload import (
    Operator,
    Workload,
    fixed_operators,
    fixed_parts,
    layer_operators,
    operators,
    policy_operators,
    unit_operators,
)
from search_spaces.channels import ChannelUnit, CutLayer
from search_spaces.policy import Choice, Policy
from search_spaces.units import FixedPart, ModelStructure, Unit


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
        extrapolated: Whether an operator lies outside what was measured; the bounds then say too little.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    corrected: bool
    extrapolated: bool = False


class LatencyPredictor:
    """Adds up table entries.

    Args:
        table: Measured times.
        workload: Batch and tokens of a call.
        structure: Model whose latencies are asked for: a correction that was fitted on other models is not applied.
            None applies the workload's, where there is but one.
        profile_command: Command that measures what the table lacks, for messages; None writes one with the table's
            target and the workload.
        allow_extrapolation: Go on beyond the measured sizes, for planning only; `extrapolated` says of which operators
            that was done.
    """

    def __init__(
        self,
        table: LatencyTable,
        workload: Workload,
        *,
        structure: ModelStructure | None = None,
        profile_command: str | None = None,
        allow_extrapolation: bool = False,
    ) -> None:
        self.workload = workload
        self.correction = table.correction(workload, structure)
        self.energy = table.energy
        self._command = profile_command or (
            f"paretrim profile --model MODEL --target {table.target} --batch {workload.batch} "
            f"--sequence-length {workload.sequence_length} --threads {table.fingerprint.threads} --out TABLE.json"
        )
        self._allow_extrapolation = allow_extrapolation
        self._grid = TimeGrid({entry.operator: entry.median_ms for entry in table.entries})
        self._found: dict[Operator, GridTime] = {}
        self._units: dict[tuple[Unit, Choice], float] = {}
        self._shared: dict[tuple[Unit, tuple[Choice, ...]], float] = {}
        self._fixed: dict[tuple[str, tuple[FixedPart, ...]], float] = {}

    def operator_ms(self, operator: Operator) -> float:
        """Return the time of one operator, without correction.

        Between measured sizes the logarithm of the time is linear in the logarithm of the size; see `TimeGrid`.

        Raises:
            MissingEntryError: Not measured and not between measured sizes.
        """
        return self._time(operator).time_ms

    def extrapolated(self, operators: Iterable[Operator]) -> tuple[Operator, ...]:
        """Return those of the operators that lie outside what was measured, without repeats.

        Raises:
            MissingEntryError: An operator has no time at all.
        """
        return tuple(operator for operator in dict.fromkeys(operators) if self._time(operator).extrapolated)

    def unit_ms(self, unit: Unit, choice: Choice) -> float:
        """Return a unit's share of a policy's latency: the sum of its operators, corrected.

        The layers of a `ChannelUnit` depend on other units too. Its share is then an estimate: as if the others kept
        the same ratio, and time went with their channels.
        """
        key = (unit, choice)
        if key not in self._units:
            total = self.operators_ms(unit_operators(unit, choice, self.workload).items())
            self._units[key] = total * choice.keep / unit.groups if isinstance(unit, ChannelUnit) else total
        return self._units[key]

    def fixed_ms(self, structure: ModelStructure, policy: Policy | None = None) -> float:
        """Return the share outside units: operators that some unit of the policy reads, and the overhead of a call.

        Without a policy all operators count.
        """
        key = (structure.base_format, fixed_parts(structure, policy))
        if key not in self._fixed:
            total = self.operators_ms(fixed_operators(structure, self.workload, policy).items())
            self._fixed[key] = total + (self.correction.overhead_ms if self.correction else 0.0)
        return self._fixed[key]

    def policy_ms(self, structure: ModelStructure, policy: Policy) -> float:
        """Return the latency of a policy: its `fixed_ms` plus `unit_ms` of every unit that shares no layers, and the
        exact sum of the others' operators.

        Raises:
            MissingEntryError: An operator is not measured and not between measured widths.
        """
        return self.fixed_ms(structure, policy) + sum(self.units_ms(structure, policy))

    def units_ms(self, structure: ModelStructure, policy: Policy) -> tuple[float, ...]:
        """Return the share of every unit in the latency of a policy, in the model's order; see `policy_ms`."""
        return tuple(
            self._shared_ms(unit, policy, structure.base_format)
            if isinstance(unit, ChannelUnit)
            else self.unit_ms(unit, policy[unit.name])
            for unit in structure.units
        )

    def layer_ms(self, cut: CutLayer) -> float:
        """Return the time of a layer between channels, with what its input's format costs."""
        return self.operators_ms(layer_operators(cut, self.workload).items())

    def _shared_ms(self, unit: ChannelUnit, policy: Policy, base_format: str) -> float:
        key = (unit, tuple(policy[name] for name in (unit.name, *unit.inputs)))
        if key not in self._shared:
            counts = policy_operators(unit, policy, base_format, self.workload)
            self._shared[key] = self.operators_ms(counts.items())
        return self._shared[key]

    def raw_ms(self, structure: ModelStructure, policy: Policy) -> float:
        """Return the plain sum of operator times, to which corrections are fitted."""
        counts = operators(structure, policy, self.workload)
        return math.fsum(count * self.operator_ms(operator) for operator, count in counts.items())

    def predict(self, structure: ModelStructure, policy: Policy) -> LatencyPrediction:
        """Return the latency of a policy with the bounds that the correction's error gives."""
        latency_ms = self.policy_ms(structure, policy)
        low, high = self.correction.interval(latency_ms) if self.correction else (latency_ms, latency_ms)
        return LatencyPrediction(
            latency_ms=latency_ms,
            low_ms=low,
            high_ms=high,
            corrected=self.correction is not None,
            extrapolated=bool(self.extrapolated(operators(structure, policy, self.workload))),
        )

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

    def operators_ms(self, counts: Iterable[tuple[Operator, int]]) -> float:
        """Return the corrected time of operators that each run so many times, without the overhead of a call."""
        return math.fsum(count * self._corrected_ms(operator) for operator, count in counts)

    def _corrected_ms(self, operator: Operator) -> float:
        raw_ms = self.operator_ms(operator)
        return raw_ms if self.correction is None else self.correction.operator_ms(operator, raw_ms)

    def _time(self, operator: Operator) -> GridTime:
        if operator not in self._found:
            found = self._grid.find(operator, extrapolate=self._allow_extrapolation)
            if found is None:
                raise MissingEntryError(self._missing([operator]))
            self._found[operator] = found
        return self._found[operator]

    def _missing(self, missing: list[Operator]) -> str:
        named = "; ".join(str(operator) for operator in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return (
            f"every operator of a policy has a measured time in the table or lies between two{self._ranges(missing)}; "
            f"the table lacks {named}{more}{self._further(missing)}; measure with: {self._command}"
        )

    def _further(self, missing: list[Operator]) -> str:
        """Whether extrapolation would answer, or why it does not."""
        if not any(self._grid.exceeded(operator) for operator in missing):
            return ""
        if self._allow_extrapolation:
            return "; a line goes on beyond the table where it has two sizes there, and here it has one"
        if all(self._grid.find(operator, extrapolate=True) for operator in missing):
            return "; --extrapolate (target.allow_extrapolation) goes on beyond the table, for planning"
        return ""

    def _ranges(self, missing: list[Operator]) -> str:
        """What the table does have of the first operator that lies outside a measured range."""
        for operator in missing:
            if exceeded := self._grid.exceeded(operator):
                ranges = " and ".join(
                    f"{low} {axis}" if low == high else f"{low} to {high} {axis}"
                    for axis, (low, high) in sorted(exceeded.items())
                )
                return f" ({operator.family} was measured for {ranges})"
        return ""
