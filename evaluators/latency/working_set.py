"""Which cache a policy's weights stay in: how much faster products are in a policy whose weights are few.

A latency that adds up operators takes each to cost the same in every policy. That holds but for one thing: from one
call to the next the weights of a small policy stay in a cache that those of the dense model do not fit in. What that
saves depends on the bytes of all weights together, so it is kept apart: a table has a curve of times by working set for
the products of each format, and a policy's products take the place on it that its own working set gives.
"""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from evaluators.latency.table import LatencyTable
from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.formats import FORMATS

Floats = npt.NDArray[np.float64]


def weight_bytes(operator: Operator) -> int:
    """Return the bytes of weights that a product reads; 0 for other operators, whose weights are few or hardly read."""
    if operator.kind is not OperatorKind.LINEAR or operator.format is None or operator.format not in FORMATS:
        return 0
    return FORMATS.get(operator.format).weight_bytes(operator.axis("out_features"), operator.axis("in_features"))


def working_set_bytes(counts: Iterable[tuple[Operator, int]]) -> int:
    """Return the bytes of weights of all products together.

    Args:
        counts: Operators, and how often each runs.
    """
    return sum(count * weight_bytes(operator) for operator, count in counts)


class CacheCurves:
    """The curves of a table.

    Args:
        table: Its curves, and the working sets that its rows were measured with.
    """

    def __init__(self, table: LatencyTable) -> None:
        self._curves = table.caches
        self._by_format: dict[str, list[int]] = {}
        for number, curve in enumerate(self._curves):
            self._by_format.setdefault(curve.format, []).append(number)
        self._logarithms = [(np.log(curve.sizes_bytes), np.log(curve.times)) for curve in self._curves]
        self._measured: dict[Operator, int] = {}
        usual: dict[str, list[int]] = {}
        for entry in table.entries:
            if entry.working_set_bytes and entry.kind is OperatorKind.LINEAR and entry.format in self._by_format:
                self._measured[entry.operator] = entry.working_set_bytes
                usual.setdefault(entry.format, []).append(entry.working_set_bytes)
        self._usual = {name: sorted(sizes)[len(sizes) // 2] for name, sizes in usual.items()}

    def __len__(self) -> int:
        return len(self._curves)

    def curve_of(self, operator: Operator) -> int | None:
        """Return the number of the curve of an operator, that of the closest number of tokens; None where it has none.

        An operator has none that is no product, or whose row does not say what working set it was measured with.
        """
        if operator.kind is not OperatorKind.LINEAR or operator.format not in self._usual:
            return None
        tokens = operator.axis("tokens")
        return min(
            self._by_format[operator.format], key=lambda number: abs(math.log(self._curves[number].tokens / tokens))
        )

    def measured_at(self, operator: Operator) -> int:
        """Return the working set in bytes that an operator with a curve was measured with, or those it lies between."""
        assert operator.format is not None
        return self._measured.get(operator, self._usual[operator.format])

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
