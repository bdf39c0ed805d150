"""Joins two latency tables of the same device, runtime and target."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.latency.standing import keeps_curves, still_holds
from evaluators.latency.table import Entry, ForeignTableError, LatencyTable, Provenance, WorkloadCorrection
from evaluators.latency.workload import Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A joined table, and how it came about.

    Attributes:
        table: The table.
        added: Rows of the second table that the first lacked.
        conflicts: Operators that both measured with different results; the row of more repeats was kept.
        dropped_corrections: Corrections that were fitted on rows that were not kept, or that others came between.
        outdone_corrections: Corrections that hold, and whose place one fitted on as many models or more has.
    """

    table: LatencyTable
    added: int
    conflicts: tuple[Operator, ...]
    dropped_corrections: tuple[WorkloadCorrection, ...] = ()
    outdone_corrections: tuple[WorkloadCorrection, ...] = ()


def merge_tables(first: LatencyTable, second: LatencyTable) -> Merged:
    """Join two tables.

    Of two rows of one operator the one with more repeats is kept, the first's where they have as many; of two cache
    curves the first's. A correction is kept where it still holds (`standing`), of two for one workload and model the
    one fitted on more models.

    Raises:
        ForeignTableError: The tables differ in target or fingerprint, and not all rows of one are those of the other.
    """
    differences = first.differences(second, names=("in the first", "in the second"))
    if differences:
        if {*map(_key, first.entries)} != {*map(_key, second.entries)}:
            raise ForeignTableError(
                "tables are joined that hold times of one target, device, runtime and number of threads; these "
                f"differ: {'; '.join(differences)}; keep them apart, or measure both on one machine"
            )
        return Merged(table=first, added=0, conflicts=())
    kept = {entry.operator: entry for entry in first.entries}
    added, lost_by_first, lost_by_second = 0, [], []
    for entry in second.entries:
        known = kept.get(entry.operator)
        if known is None or (entry.repeats or 0) > (known.repeats or 0):
            kept[entry.operator] = entry
            added += known is None
            lost_by_first += [] if known is None else [entry.operator]
        elif _key(known) != _key(entry):
            lost_by_second.append(entry.operator)
    rows = tuple(sorted(kept.values(), key=lambda entry: str(entry.operator)))
    measured = {(curve.format, curve.tokens) for curve in first.caches}
    caches = (*first.caches, *(curve for curve in second.caches if (curve.format, curve.tokens) not in measured))
    holding = [
        correction
        for table in (first, second)
        for correction in table.corrections
        if still_holds(correction, table.entries, rows) and keeps_curves(correction, table.caches, caches)
    ]
    corrections = _best(holding)
    table = LatencyTable(
        target=first.target,
        fingerprint=first.fingerprint,
        provenance=_provenance(first, second),
        entries=rows,
        corrections=corrections,
        caches=caches,
        energy=first.energy or second.energy,
    )
    conflicts = tuple(sorted((*lost_by_first, *lost_by_second), key=str))
    return Merged(
        table=table,
        added=added,
        conflicts=conflicts,
        dropped_corrections=tuple(c for c in (*first.corrections, *second.corrections) if c not in holding),
        outdone_corrections=tuple(c for c in holding if c not in corrections),
    )


def _key(entry: Entry) -> tuple[Operator, float, float | None, int | None, int | None]:
    return entry.operator, entry.median_ms, entry.spread_ms, entry.repeats, entry.working_set_bytes


def _best(corrections: Sequence[WorkloadCorrection]) -> tuple[WorkloadCorrection, ...]:
    """The correction of most models for each workload and model, the first of several."""
    found: dict[tuple[int, int, str], WorkloadCorrection] = {}
    for correction in corrections:
        known = found.get(correction.key)
        if known is None or correction.fit.models > known.fit.models:
            found[correction.key] = correction
    return tuple(found[key] for key in sorted(found))


def _provenance(first: LatencyTable, second: LatencyTable) -> Provenance:
    """What both tables say of themselves, and which tables they were."""
    both = (first.provenance, second.provenance)
    dates = [provenance.measured_at for provenance in both if provenance.measured_at is not None]
    rounds = [provenance.rounds for provenance in both if provenance.rounds is not None]
    clocks = dict.fromkeys(provenance.clocks for provenance in both if provenance.clocks is not None)
    joined = f"joined from tables {first.checksum[:12]} and {second.checksum[:12]}"
    return Provenance(
        measured_at=max(dates, default=None),
        rounds=min(rounds, default=None),
        clocks="; ".join(clocks) or None,
        notes=tuple(dict.fromkeys((*first.provenance.notes, *second.provenance.notes, joined))),
        sources=tuple(dict.fromkeys((*first.provenance.sources, *second.provenance.sources))),
    )
