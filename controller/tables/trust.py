"""How far a table may be trusted for a model and a space: lines for people, told anew from what the table holds."""

from __future__ import annotations

from collections.abc import Iterable

from evaluators.latency.table import LatencyTable
from evaluators.latency.working_set import rows_apart
from evaluators.latency.workload import Operator, OperatorKind, Workload
from search_spaces.space import SearchSpace
from workers.profiling.caches import REACHES
from workers.profiling.required import required_operators, working_set_bytes

_NAMED = 3
_CALIBRATE = "`paretrim calibrate-table` fits one on this space"


def trust_notes(table: LatencyTable, space: SearchSpace, workload: Workload) -> tuple[str, ...]:
    """Say what weakens a table's answers for a space, most of all its correction; nothing where nothing does.

    Args:
        table: The table.
        space: Model and choices.
        workload: What the model is fed with.
    """
    operators = required_operators(space, workload)
    return (*_correction(table, space, workload), *_working_sets(table, space, operators))


def _correction(table: LatencyTable, space: SearchSpace, workload: Workload) -> Iterable[str]:
    stored = table.stored_correction(workload, space.structure)
    if stored is None:
        others = [c.name for c in table.corrections if c.key[:2] == (workload.batch, workload.sequence_length)]
        if others:
            yield f"the table's corrections are of other models ({'; '.join(others[:_NAMED])}); {_CALIBRATE}"
        return
    if stored.basis is None:
        return
    if beyond := stored.basis.lacks(space):
        yield (
            f"the correction was fitted on a narrower space, without {', '.join(beyond)}; it may err by more there "
            f"than it says; {_CALIBRATE}"
        )
    if stored.is_unfinished:
        yield (
            f"the correction was fitted on {stored.fit.models} whole models of {stored.basis.wanted}, as time was "
            "over; profile again to go on"
        )


def _working_sets(table: LatencyTable, space: SearchSpace, operators: Iterable[Operator]) -> Iterable[str]:
    largest = working_set_bytes(space.structure, None)
    # Products are moved along their curve, where that reaches far enough.
    curved = {curve.format for curve in table.caches if curve.sizes_bytes[-1] >= largest / REACHES}
    rows = [entry for entry in table.entries if entry.kind is not OperatorKind.LINEAR or entry.format not in curved]
    found = rows_apart(rows, operators, lambda name: working_set_bytes(space.structure, name))
    if not found:
        return
    sizes = [entry.working_set_bytes or 0 for entry in found]
    mine = [working_set_bytes(space.structure, entry.format) for entry in found]
    yield (
        f"{len(found)} operators were timed for a model of another size, with {_mib(sizes)} of weights in the caches "
        f"between two runs where this model has {_mib(mine)}: its weights may come from another memory; profile this "
        "model into a file of its own"
    )


def _mib(sizes: list[int]) -> str:
    low, high = (f"{bound(sizes) / 2**20:.3g}" for bound in (min, max))
    return f"{low} MiB" if low == high else f"{low} to {high} MiB"
