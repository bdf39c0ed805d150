"""Joins two latency tables of the same device, runtime and target."""

from dataclasses import dataclass

from evaluators.latency.table import Entry, ForeignTableError, LatencyTable, Provenance, WorkloadCorrection
from evaluators.latency.workload import Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A joined table, and how it came about.

    Attributes:
        table: The table.
        added: Rows of the second table that the first lacked.
        conflicts: Operators that both measured with different results; the row of more repeats was kept.
        dropped_corrections: Workloads (batch, sequence length) whose correction was fitted on rows that were not kept.
    """

    table: LatencyTable
    added: int
    conflicts: tuple[Operator, ...]
    dropped_corrections: tuple[tuple[int, int], ...]


def merge_tables(first: LatencyTable, second: LatencyTable) -> Merged:
    """Join two tables.

    Of two rows of one operator the one with more repeats is kept, the first's where they have as many. A correction is
    kept where all rows of its table are; of two for one workload the one fitted on more models.

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
        return Merged(table=first, added=0, conflicts=(), dropped_corrections=())
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
    corrections, dropped = _corrections(
        () if lost_by_first else first.corrections,
        () if lost_by_second else second.corrections,
        (*first.corrections, *second.corrections),
    )
    table = LatencyTable(
        target=first.target,
        fingerprint=first.fingerprint,
        provenance=_provenance(first, second),
        entries=tuple(sorted(kept.values(), key=lambda entry: str(entry.operator))),
        corrections=corrections,
        energy=first.energy or second.energy,
    )
    conflicts = tuple(sorted((*lost_by_first, *lost_by_second), key=str))
    return Merged(table=table, added=added, conflicts=conflicts, dropped_corrections=dropped)


def _key(entry: Entry) -> tuple[Operator, float, float | None, int | None, int | None]:
    return entry.operator, entry.median_ms, entry.spread_ms, entry.repeats, entry.working_set_bytes


def _corrections(
    of_first: tuple[WorkloadCorrection, ...],
    of_second: tuple[WorkloadCorrection, ...],
    every: tuple[WorkloadCorrection, ...],
) -> tuple[tuple[WorkloadCorrection, ...], tuple[tuple[int, int], ...]]:
    """The corrections that still hold, and the workloads that are left without one."""
    found: dict[tuple[int, int], WorkloadCorrection] = {}
    for correction in (*of_first, *of_second):
        workload = (correction.batch, correction.sequence_length)
        if workload not in found or correction.fit.models > found[workload].fit.models:
            found[workload] = correction
    left_out = {(correction.batch, correction.sequence_length) for correction in every} - found.keys()
    return tuple(found[workload] for workload in sorted(found)), tuple(sorted(left_out))


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
