"""What a latency table holds, in short, and what looks odd about it."""

import itertools
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.latency.interpolation import TimeGrid
from evaluators.latency.table import Entry, LatencyTable
from evaluators.latency.workload import AXIS_NAMES, Operator

FALL = 0.01
"""Share by which a larger operator must be faster than a smaller one, beyond their spreads, to be worth a warning."""
MUCH_ERROR_PCT = 10.0
"""Median error of a correction in per cent from which it is worth a warning."""
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSummary:
    """Rows of one kind and format or function.

    Attributes:
        kind: The kind, with its format or function.
        rows: How many rows.
        axes: Smallest and largest size along each axis.
        low_ms: Smallest time.
        high_ms: Largest time.
        spread: Median relative spread; None where no row has one.
        repeats: Fewest repeats of a row; None where a row does not state them.
    """

    kind: str
    rows: int
    axes: dict[str, tuple[int, int]]
    low_ms: float
    high_ms: float
    spread: float | None
    repeats: int | None


def summarise(table: LatencyTable) -> tuple[KindSummary, ...]:
    """Return the rows of a table by kind, format and function."""
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in table.entries:
        by_kind[entry.operator.family].append(entry)
    return tuple(_summary(kind, entries) for kind, entries in sorted(by_kind.items()))


def _summary(kind: str, entries: Sequence[Entry]) -> KindSummary:
    sizes = {axis: [entry.axes[axis] for entry in entries] for axis in AXIS_NAMES[entries[0].kind]}
    spreads = [spread for entry in entries if (spread := entry.relative_spread) is not None]
    repeats = [entry.repeats for entry in entries if entry.repeats is not None]
    return KindSummary(
        kind=kind,
        rows=len(entries),
        axes={axis: (min(found), max(found)) for axis, found in sizes.items()},
        low_ms=min(entry.median_ms for entry in entries),
        high_ms=max(entry.median_ms for entry in entries),
        spread=statistics.median(spreads) if spreads else None,
        repeats=min(repeats) if len(repeats) == len(entries) else None,
    )


def find_oddities(table: LatencyTable) -> tuple[str, ...]:
    """Return a warning for each thing that a sound table may have, and that is worth a look.

    Larger operators that are faster than smaller ones by more than both spread, rows whose runs all took the same time,
    tables without anything to interpolate between, and corrections that err widely.
    """
    return tuple(text for text in (_falling(table), _without_spread(table), _alone(table), _erring(table)) if text)


def _falling(table: LatencyTable) -> str:
    spread_ms = {entry.operator: entry.spread_ms or 0.0 for entry in table.entries}
    grid = TimeGrid({entry.operator: entry.median_ms for entry in table.entries})
    falls: list[tuple[float, Operator, Operator]] = []
    for _, line in grid.lines():
        for (smaller, smaller_ms), (larger, larger_ms) in itertools.pairwise(line):
            margin_ms = (spread_ms[smaller] + spread_ms[larger]) / 2 + FALL * smaller_ms
            if larger_ms < smaller_ms - margin_ms:
                falls.append((larger_ms / smaller_ms, larger, smaller))
    if not falls:
        return ""
    falls.sort(key=lambda fall: fall[0])
    named = "; ".join(f"{larger} takes {ratio:.2f} of {smaller}" for ratio, larger, smaller in falls[:_NAMED])
    more = f"; and {len(falls) - _NAMED} more" if len(falls) > _NAMED else ""
    return (
        f"{len(falls)} larger operators are faster than the next smaller ones by more than both spread: {named}{more}; "
        "that may be the hardware, or a noisy machine"
    )


def _without_spread(table: LatencyTable) -> str:
    found = [entry for entry in table.entries if entry.spread_ms == 0 and (entry.repeats or 1) > 1]
    if not found:
        return ""
    return (
        f"{len(found)} of {len(table.entries)} rows have runs that all took the same time, for example "
        f"{found[0].operator}: the clock was too coarse for them, so that their times are rounded"
    )


def _alone(table: LatencyTable) -> str:
    if any(True for _ in TimeGrid({entry.operator: entry.median_ms for entry in table.entries}).lines()):
        return ""
    return (
        f"no two of the {len(table.entries)} rows lie on one line, so that nothing lies between them: the table "
        "answers for what it holds and for nothing else"
    )


def _erring(table: LatencyTable) -> str:
    found = [c for c in table.corrections if c.fit.median_error_pct > MUCH_ERROR_PCT]
    if not found:
        return ""
    named = "; ".join(f"{c.fit.median_error_pct:.1f} % for {c.name}" for c in found[:_NAMED])
    return (
        f"whole models that a correction did not see are predicted with a median error of {named}: latencies of a "
        "search are that wrong; measure again on a quiet machine into a new file"
    )
