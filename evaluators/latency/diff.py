"""Compares two latency tables: where they are from, and how their times differ."""

import statistics
from collections import defaultdict
from dataclasses import dataclass

from evaluators.latency.table import LatencyTable
from evaluators.latency.workload import Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRatio:
    """An operator that both tables have.

    Attributes:
        operator: The operator, in words.
        first_ms: Its time in the first table.
        second_ms: Its time in the second.
        ratio: Second over first.
    """

    operator: str
    first_ms: float
    second_ms: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRatio:
    """How the times of a kind differ.

    Attributes:
        kind: Kind of operator, with its format or function.
        rows: Operators that both tables have.
        median: Median of second over first.
        low: Smallest ratio.
        high: Largest ratio.
    """

    kind: str
    rows: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDiff:
    """How two tables differ.

    Attributes:
        differences: Fields of target and fingerprint that differ.
        common: Operators that both have.
        only_first: Operators that only the first has.
        only_second: Operators that only the second has.
        median_ratio: Median of second over first; None where they have nothing in common.
        kinds: Ratios by kind and format.
        largest: The operators whose times differ most, by ratio.
    """

    differences: tuple[str, ...]
    common: int
    only_first: int
    only_second: int
    median_ratio: float | None
    kinds: tuple[KindRatio, ...]
    largest: tuple[RowRatio, ...]


def compare_tables(first: LatencyTable, second: LatencyTable, *, largest: int = 10) -> TableDiff:
    """Compare two tables row by row.

    Args:
        first: The table that ratios are relative to.
        second: The other.
        largest: How many of the operators that differ most are named.
    """
    firsts = {entry.operator: entry.median_ms for entry in first.entries}
    seconds = {entry.operator: entry.median_ms for entry in second.entries}
    ratios = {operator: seconds[operator] / firsts[operator] for operator in firsts if operator in seconds}
    by_kind: dict[str, list[float]] = defaultdict(list)
    for operator, ratio in ratios.items():
        by_kind[operator.family].append(ratio)
    ranked = sorted(ratios, key=lambda operator: max(ratios[operator], 1 / ratios[operator]), reverse=True)

    def row(operator: Operator) -> RowRatio:
        return RowRatio(
            operator=str(operator),
            first_ms=firsts[operator],
            second_ms=seconds[operator],
            ratio=ratios[operator],
        )

    return TableDiff(
        differences=first.differences(second, names=("in the first", "in the second")),
        common=len(ratios),
        only_first=len(firsts) - len(ratios),
        only_second=len(seconds) - len(ratios),
        median_ratio=statistics.median(ratios.values()) if ratios else None,
        kinds=tuple(
            KindRatio(kind=kind, rows=len(r), median=statistics.median(r), low=min(r), high=max(r))
            for kind, r in sorted(by_kind.items())
        ),
        largest=tuple(row(operator) for operator in ranked[:largest] if ratios[operator] != 1),
    )
