"""Where the time of a policy goes inside a whole model: by unit and operator, with what the call itself adds."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.workload import Operator, OperatorKind, fixed_operators, policy_operators
from search_spaces.policy import Policy
from search_spaces.units import ModelStructure


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """Time that operators of one kind and shape take in a part of the model.

    Attributes:
        operator: What is computed.
        count: How often.
        latency_ms: Time inside a whole model, all of them together.
    """

    operator: Operator
    count: int
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTime:
    """Time of one unit, or of all that lies outside units.

    Attributes:
        name: Name of the unit; empty for what lies outside.
        operators: Its operators, the slowest first.
        latency_ms: Their times added up.
        table_ms: The same by the table, each operator by itself.
    """

    name: str
    operators: tuple[OperatorTime, ...]
    latency_ms: float
    table_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Time of a call by part.

    Attributes:
        units: Units in the model's order.
        outside: What lies outside units.
        overhead_ms: Time of a call that no operator explains.
    """

    units: tuple[PartTime, ...]
    outside: PartTime
    overhead_ms: float

    @property
    def parts(self) -> tuple[PartTime, ...]:
        """Units, then what lies outside them."""
        return (*self.units, self.outside)

    @property
    def correction_ms(self) -> float:
        """What operators take inside a whole model beyond their own times; below 0 where fusion saves time."""
        return sum(part.latency_ms - part.table_ms for part in self.parts)

    @property
    def latency_ms(self) -> float:
        """Predicted time of a call."""
        return sum(part.latency_ms for part in self.parts) + self.overhead_ms

    def latency_ms_of(self, kinds: Iterable[OperatorKind]) -> float:
        """Return the time of all operators of some kinds."""
        wanted = set(kinds)
        return sum(o.latency_ms for part in self.parts for o in part.operators if o.operator.kind in wanted)


def break_down(structure: ModelStructure, policy: Policy, predictor: LatencyPredictor) -> Breakdown:
    """Split a policy's predicted latency into its parts, which add up to `LatencyPredictor.policy_ms`.

    Args:
        structure: Units and fixed parts.
        policy: A choice for every unit.
        predictor: Times on the target.

    Raises:
        MissingEntryError: The table lacks an operator.
    """
    predictor = predictor.for_policy(structure, policy)
    units = tuple(
        _part(unit.name, policy_operators(unit, policy, structure.base_format, predictor.workload), predictor)
        for unit in structure.units
    )
    outside = _part("", fixed_operators(structure, predictor.workload, policy), predictor)
    overhead_ms = 0.0 if predictor.correction is None else predictor.correction.overhead_ms
    return Breakdown(units=units, outside=outside, overhead_ms=overhead_ms)


def _part(name: str, counts: Counter[Operator], predictor: LatencyPredictor) -> PartTime:
    times = [
        OperatorTime(operator=operator, count=count, latency_ms=predictor.operators_ms([(operator, count)]))
        for operator, count in counts.items()
    ]
    return PartTime(
        name=name,
        operators=tuple(sorted(times, key=lambda time: (-time.latency_ms, str(time.operator)))),
        latency_ms=sum(time.latency_ms for time in times),
        table_ms=sum(count * predictor.operator_ms(operator) for operator, count in counts.items()),
    )
