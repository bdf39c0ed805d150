"""Which cache a policy's weights stay in: how much faster products are in a policy whose weights are few.

A latency that adds up operators takes each to cost the same in every policy. That holds but for one thing: from one
call to the next the weights of a small policy stay in a cache that those of the dense model do not fit in. What that
saves depends on the bytes of all weights together, so it is kept apart: a table has a curve of times by working set for
the products of each format, and a policy's products take the place on it that its own working set gives.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from evaluators.latency.table import CacheCurve, Entry, LatencyTable
from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.formats import FORMATS

Floats = npt.NDArray[np.float64]

APART = 2.0
"""From so many times as many bytes on, weights may come from another memory."""
CLOSE_BYTES = 2**20
"""Working sets up to this many bytes lie in the second level of cache of today's CPUs, whatever they have besides."""


def weight_bytes(operator: Operator) -> int:
    """Return the bytes of weights that a product or a convolution reads; 0 for other operators, whose weights are few
    or hardly read.
    """
    if operator.format is None or operator.format not in FORMATS:
        return 0
    if operator.kind is OperatorKind.LINEAR:
        return FORMATS.get(operator.format).weight_bytes(operator.axis("out_features"), operator.axis("in_features"))
    if operator.kind is OperatorKind.CONVOLUTION:
        columns = operator.axis("in_channels") * operator.axis("kernel") ** 2
        return FORMATS.get(operator.format).weight_bytes(operator.axis("out_channels"), columns)
    return 0


def working_set_bytes(counts: Iterable[tuple[Operator, int]]) -> int:
    """Return the bytes of weights of all products and convolutions together.

    Args:
        counts: Operators, and how often each runs.
    """
    return sum(count * weight_bytes(operator) for operator, count in counts)


def closest_curve(curves: Sequence[CacheCurve], format_name: str, tokens: int) -> CacheCurve | None:
    """Return the curve of a format whose tokens are closest by ratio to some; None where the format has none."""
    found = [curve for curve in curves if curve.format == format_name]
    return min(found, key=lambda curve: abs(math.log(curve.tokens / tokens)), default=None)


def are_apart(first_bytes: int, second_bytes: int) -> bool:
    """Whether weights of two working sets may come from different memories: one is twice the other, and past 1 MiB."""
    low, high = sorted((first_bytes, second_bytes))
    return high > CLOSE_BYTES and high >= APART * low


def rows_apart(
    entries: Iterable[Entry], operators: Iterable[Operator], working_set_of: Callable[[str | None], int]
) -> Sequence[Entry]:
    """Return the rows of operators that were timed with far more weights in the caches than a model has, or far fewer.

    Rows of imported sources that do not state their working set are not among them.

    Args:
        entries: Rows of a table.
        operators: What the model runs; rows of others do not count.
        working_set_of: Bytes of the model's weights in a format; None means the base format.
    """
    wanted = set(operators)
    return [
        entry
        for entry in entries
        if entry.working_set_bytes is not None
        and entry.operator in wanted
        and are_apart(entry.working_set_bytes, working_set_of(entry.format))
    ]


class CacheCurves:
    """The curves of a table.

    Args:
        table: Its curves, and the working sets that its rows were measured with.
    """

    def __init__(self, table: LatencyTable) -> None:
        self._curves = table.caches
        self._logarithms = [(np.log(curve.sizes_bytes), np.log(curve.times)) for curve in self._curves]
        rows = [entry for entry in table.entries if entry.kind is OperatorKind.LINEAR]
        # Where a row does not say what it was measured with, nobody knows its place, nor that of what lies beside it.
        silent = {entry.format for entry in rows if not entry.working_set_bytes}
        self._formats = {curve.format for curve in self._curves} - silent
        self._measured_at = {entry.operator: entry.working_set_bytes or 0 for entry in rows}
        usual: dict[str | None, list[int]] = {}
        for entry in rows:
            usual.setdefault(entry.format, []).append(entry.working_set_bytes or 0)
        self._usual = {name: sorted(sizes)[len(sizes) // 2] for name, sizes in usual.items()}

    def __len__(self) -> int:
        return len(self._curves)

    def curve_of(self, operator: Operator) -> int | None:
        """Return the number of the curve of an operator, that of the closest number of tokens; None where it has none.

        An operator has none that is no product, or where rows of its format do not say what working set they were
        measured with.
        """
        if operator.kind is not OperatorKind.LINEAR or operator.format is None or operator.format not in self._formats:
            return None
        found = closest_curve(self._curves, operator.format, operator.axis("tokens"))
        return None if found is None else self._curves.index(found)

    def by_itself(self, operator: Operator) -> float:
        """Return the level of an operator in the model that was profiled: 1 where it has no curve.

        That is the level of its row; of an operator that lies between rows, one of the format's usual working set.
        """
        curve = self.curve_of(operator)
        if curve is None:
            return 1.0
        return self.level(curve, self._measured_at.get(operator, self._usual.get(operator.format, 0)))

    def level(self, curve: int, size_bytes: float) -> float:
        """Return the time with a working set as a multiple of that with the largest: on a curve, by its number.

        Between sizes the logarithm of the time is linear in that of the size; beyond the ends it stays.
        """
        sizes, times = self._logarithms[curve]
        return float(np.exp(np.interp(math.log(max(size_bytes, 1.0)), sizes, times)))

    def levels(self, sizes_bytes: Floats) -> Floats:
        """Return the levels on all curves, (N, curves), for working sets (N,)."""
        logarithms_N = np.log(np.maximum(sizes_bytes, 1.0))
        return np.column_stack([np.exp(np.interp(logarithms_N, sizes, times)) for sizes, times in self._logarithms])
