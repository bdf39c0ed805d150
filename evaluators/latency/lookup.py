"""Operator times from a table, exact on its grid and interpolated within it, added up to a policy's latency."""

import math
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass

import numpy as np

from evaluators.latency.interpolation import GridTime, TimeGrid
from evaluators.latency.table import LatencyTable
from evaluators.latency.working_set import CacheCurves, Floats, working_set_bytes
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
        low_ms: Lower bound of `Correction.interval`; None where nobody measured how far the prediction errs: without a
            correction, and where `extrapolated`.
        high_ms: Upper bound, likewise.
        corrected: Whether a correction was applied.
        extrapolated: Whether an operator lies outside what was measured.
    """

    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    corrected: bool
    extrapolated: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """What operators take, whatever the policy that they are part of.

    Attributes:
        times_ms: Time that is the same in every policy, then for each cache curve the time that products on it would
            take at its end, (1 + curves,).
        weight_bytes: Weights that they read.
    """

    times_ms: Floats
    weight_bytes: int

    def __add__(self, other: "Work") -> "Work":
        return Work(self.times_ms + other.times_ms, self.weight_bytes + other.weight_bytes)


class LatencyPredictor:
    """Adds up table entries.

    Where the table has cache curves, an operator's time depends on the weights of the whole policy: `policy_ms` and
    whatever is asked of `for_policy` is exact, and what is asked of one unit holds for a model of the size that was
    profiled. Without curves these are the same.

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
        self._curves = CacheCurves(table)
        # Rows of products stand at the end of their curve, so that those of different working sets compare.
        self._grid = TimeGrid(
            {entry.operator: entry.median_ms / self._curves.by_itself(entry.operator) for entry in table.entries}
        )
        self._found: dict[Operator, GridTime] = {}
        self._working_set: float | None = None
        self._units: dict[tuple[Unit, Choice], float] = {}
        self._works: dict[tuple[Unit, tuple[Choice, ...]], Work] = {}
        self._fixed: dict[tuple[str, tuple[FixedPart, ...]], float] = {}
        self._fixed_works: dict[tuple[str, tuple[FixedPart, ...]], Work] = {}

    def at(self, working_set: float) -> "LatencyPredictor":
        """Return a predictor of times inside of a policy with so many bytes of weights, 0 or more; see
        `evaluators.latency.working_set`.
        """
        if not len(self._curves):
            return self
        found = copy(self)
        found._working_set, found._units, found._fixed = working_set, {}, {}
        return found

    def for_policy(self, structure: ModelStructure, policy: Policy) -> "LatencyPredictor":
        """Return a predictor of times inside of a policy."""
        return self.at(self.policy_work(structure, policy).weight_bytes) if len(self._curves) else self

    def operator_ms(self, operator: Operator) -> float:
        """Return the time of one operator, without correction.

        Between measured sizes the logarithm of the time is linear in the logarithm of the size; see `TimeGrid`.

        Raises:
            MissingEntryError: Not measured and not between measured sizes.
        """
        time_ms = self._time(operator).time_ms
        if self._working_set is None:
            return time_ms * self._curves.by_itself(operator)
        curve = self._curves.curve_of(operator)
        return time_ms if curve is None else time_ms * self._curves.level(curve, self._working_set)

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
        """Return the latency of a policy: the sum of its operators inside of it, corrected, and the overhead of a call.

        Raises:
            MissingEntryError: An operator is not measured and not between measured widths.
        """
        return self.inside(self.policy_work(structure, policy))

    def units_ms(self, structure: ModelStructure, policy: Policy) -> tuple[float, ...]:
        """Return the share of every unit in the latency of a policy, in the model's order; with `fixed_ms` of
        `for_policy` they add up to `policy_ms`.
        """
        works = [self._unit_work(unit, policy, structure.base_format) for unit in structure.units]
        levels = self._levels(self.policy_work(structure, policy).weight_bytes)
        return tuple(float(work.times_ms @ levels) for work in works)

    def policy_work(self, structure: ModelStructure, policy: Policy) -> Work:
        """Return what all operators of a policy take, with the overhead of a call."""
        works = [self._unit_work(unit, policy, structure.base_format) for unit in structure.units]
        return sum(works, start=self.fixed_work(structure, policy))

    def fixed_work(self, structure: ModelStructure, policy: Policy | None = None) -> Work:
        """Return what operators outside units take that some unit of the policy reads, with the overhead of a call.

        Without a policy all operators count.
        """
        key = (structure.base_format, fixed_parts(structure, policy))
        if key not in self._fixed_works:
            found = self.work_of(fixed_operators(structure, self.workload, policy).items())
            found.times_ms[0] += self.correction.overhead_ms if self.correction else 0.0
            self._fixed_works[key] = found
        return self._fixed_works[key]

    def work_of(self, counts: Iterable[tuple[Operator, int]]) -> Work:
        """Return what operators take that each run so many times, without the overhead of a call."""
        counts = tuple(counts)
        terms: list[list[float]] = [[] for _ in range(1 + len(self._curves))]
        for operator, count in counts:
            raw_ms = self._time(operator).time_ms
            curve = self._curves.curve_of(operator)
            if curve is None:
                terms[0].append(count * self._corrected_ms(operator, raw_ms))
                continue
            overhead_ms = self._corrected_ms(operator, 0.0)
            terms[0].append(count * overhead_ms)
            terms[1 + curve].append(count * (self._corrected_ms(operator, raw_ms) - overhead_ms))
        return Work(np.array([math.fsum(term) for term in terms]), working_set_bytes(counts))

    def inside(self, work: Work) -> float:
        """Return the time in ms of all the work of a policy."""
        return float(work.times_ms @ self._levels(work.weight_bytes))

    def inside_many(self, times_NT: Floats, weight_bytes_N: Floats) -> Floats:
        """Return the times in ms, (N,), of all the work of many policies.

        Args:
            times_NT: Its times, (N, 1 + curves); see `Work`.
            weight_bytes_N: Its weights, (N,).
        """
        found: Floats = times_NT[:, 0].copy()
        if len(self._curves):
            found += (times_NT[:, 1:] * self._curves.levels(weight_bytes_N)).sum(axis=1)
        return found

    def layer_ms(self, cut: CutLayer) -> float:
        """Return the time of a layer between channels, with what its input's format costs."""
        return self.operators_ms(layer_operators(cut, self.workload).items())

    def _levels(self, weight_bytes: float) -> Floats:
        """What the times of `Work` are multiplied by in a policy with so many bytes of weights."""
        size = weight_bytes if self._working_set is None else self._working_set
        return np.array([1.0, *(self._curves.level(curve, size) for curve in range(len(self._curves)))])

    def _unit_work(self, unit: Unit, policy: Policy, base_format: str) -> Work:
        names = (unit.name, *unit.inputs) if isinstance(unit, ChannelUnit) else (unit.name,)
        key = (unit, tuple(policy[name] for name in names))
        if key not in self._works:
            self._works[key] = self.work_of(policy_operators(unit, policy, base_format, self.workload).items())
        return self._works[key]

    def raw_ms(self, structure: ModelStructure, policy: Policy) -> float:
        """Return the plain sum of operator times inside of a policy, to which corrections are fitted."""
        work = self.work_by_operator(operators(structure, policy, self.workload))
        return math.fsum(count * time_ms for _, count, time_ms in work)

    def work_by_operator(self, counts: Mapping[Operator, int]) -> tuple[tuple[Operator, int, float], ...]:
        """Return the operators of a whole policy, how often each runs, and its time in ms without correction."""
        inside = self.at(working_set_bytes(counts.items()))
        return tuple((operator, count, inside.operator_ms(operator)) for operator, count in counts.items())

    def predict(self, structure: ModelStructure, policy: Policy) -> LatencyPrediction:
        """Return the latency of a policy with its interval, where that is known."""
        latency_ms = self.policy_ms(structure, policy)
        extrapolated = bool(self.extrapolated(operators(structure, policy, self.workload)))
        low_ms, high_ms = None, None
        if self.correction is not None and not extrapolated:
            low_ms, high_ms = self.correction.interval(latency_ms)
        return LatencyPrediction(
            latency_ms=latency_ms,
            low_ms=low_ms,
            high_ms=high_ms,
            corrected=self.correction is not None,
            extrapolated=extrapolated,
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
        return math.fsum(count * self._corrected_ms(operator, self.operator_ms(operator)) for operator, count in counts)

    def _corrected_ms(self, operator: Operator, raw_ms: float) -> float:
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
            f"the table lacks {named}{more}{self._ranges(missing)}; a policy has a latency only where each of its "
            f"operators was measured or lies between two that were{self._further(missing)}; "
            f"measure with: {self._command}"
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
