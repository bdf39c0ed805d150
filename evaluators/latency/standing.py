"""Which corrections still hold when a table's rows change."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.latency.interpolation import TimeGrid
from evaluators.latency.table import CacheCurve, Entry, WorkloadCorrection
from evaluators.latency.table.basis import operator_of
from evaluators.latency.working_set import closest_curve
from evaluators.latency.workload import Operator, OperatorKind


def still_holds(correction: WorkloadCorrection, before: Sequence[Entry], after: Sequence[Entry]) -> bool:
    """Whether a correction holds for other rows than those of its table.

    One that says what it was fitted on holds while its models' operators keep their times. Of another it is only known
    that its table answered for them: it holds while all rows stay as they were, and none comes between them.

    Args:
        correction: The correction.
        before: Rows of the table that it stands in.
        after: The rows as they are to be.
    """
    if correction.basis is not None:
        return correction.basis.holds(after)
    known = {entry.operator: entry.median_ms for entry in before}
    found = {entry.operator: entry.median_ms for entry in after}
    if any(found.get(operator) != time_ms for operator, time_ms in known.items()):
        return False
    grid = TimeGrid(known)
    added = (o for o in found.keys() - known.keys() if _is_of_call(o, correction))
    return all(grid.find(operator) is None for operator in added)


def keeps_curves(correction: WorkloadCorrection, before: Sequence[CacheCurve], after: Sequence[CacheCurve]) -> bool:
    """Whether the products of a correction's models stay on the same cache curves.

    Of one that does not say what it was fitted on, products of all formats and of the call's tokens count.
    """
    if correction.basis is not None:
        operators = map(operator_of, correction.basis.times_ms)
        products = {(o.format or "", o.axis("tokens")) for o in operators if o.kind is OperatorKind.LINEAR}
    else:
        tokens = correction.batch * correction.sequence_length
        products = {(curve.format, tokens) for curve in (*before, *after)}
    return all(closest_curve(before, *product) == closest_curve(after, *product) for product in products)


def _is_of_call(operator: Operator, correction: WorkloadCorrection) -> bool:
    """Whether an operator has the sizes of a correction's workload."""
    batch, length = correction.batch, correction.sequence_length
    wanted = {"tokens": (batch, batch * length), "batch": (batch,), "sequence": (length,)}
    return all(size in wanted[name] for name, size in operator.axes if name in wanted)
