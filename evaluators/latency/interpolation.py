"""Times between measured points: linear in logarithms along each axis, exact on the grid, nothing outside it."""

import itertools
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evaluators.latency.workload import Operator, OperatorKind

AXES: dict[OperatorKind, tuple[str, ...]] = {
    OperatorKind.LINEAR: ("in_features", "out_features", "tokens"),
    OperatorKind.QUANTIZE: ("features", "tokens"),
    OperatorKind.ATTENTION_CORE: ("heads", "batch", "sequence"),
    OperatorKind.ACTIVATION: ("features", "tokens"),
    OperatorKind.LAYER_NORM: ("features", "tokens"),
    OperatorKind.RMS_NORM: ("features", "tokens"),
    OperatorKind.HEAD_NORM: ("heads", "batch", "sequence"),
    OperatorKind.ROTARY: ("heads", "batch", "sequence"),
    OperatorKind.POSITIONS: ("batch", "sequence"),
    OperatorKind.EMBEDDING: ("tokens",),
    OperatorKind.CONVOLUTION: ("in_channels", "out_channels", "batch"),
    OperatorKind.DEPTHWISE: ("channels", "batch"),
    OperatorKind.STATIC_QUANTIZE: ("channels", "batch"),
    OperatorKind.DEQUANTIZE: ("channels", "batch"),
    OperatorKind.RESIDUAL_ADD: ("channels", "batch"),
}
"""Axes along which times are interpolated: widths that pruning changes, and how much passes in a call."""

MAX_EXPONENT = {"sequence": 2.0}
"""Power of an axis that work grows with, where it is not 1; beyond the grid no time grows faster."""

Point = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GridTime:
    """Time of an operator by the grid.

    Attributes:
        time_ms: The time in milliseconds.
        extrapolated: Whether it lies outside the grid.
    """

    time_ms: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Logarithm of a time, and how far apart the points are that it rests on (sum of logarithms of ratios)."""

    log_ms: float
    distance: float


class TimeGrid:
    """Measured times of operators, and what lies between them.

    Between two measured sizes the logarithm of the time is linear in the logarithm of the size, so it stays between
    its neighbours. An operator that differs from all measured ones on several axes is interpolated along one after the
    other: where all corners of the cell around it are measured, that is multi-linear. As few axes as possible are
    taken, and among ways with equally many the one whose neighbours are closest.

    Args:
        times_ms: Time of each measured operator, above 0.
    """

    def __init__(self, times_ms: Mapping[Operator, float]) -> None:
        self._times_ms = dict(times_ms)
        families: dict[Operator, dict[Point, float]] = defaultdict(dict)
        for operator, time_ms in self._times_ms.items():
            families[_family(operator)][_point(operator)] = math.log(time_ms)
        self._families = {family: _Family(AXES[family.kind], points) for family, points in families.items()}

    def find(self, operator: Operator, *, extrapolate: bool = False) -> GridTime | None:
        """Return the time of an operator; None where it is neither measured nor between measured ones.

        Args:
            operator: What to look up.
            extrapolate: Go on along the last two points of a line where the operator lies outside the grid. The time
                then grows with the size, and no faster than the work.
        """
        if (exact := self._times_ms.get(operator)) is not None:
            return GridTime(exact, extrapolated=False)
        family = self._families.get(_family(operator))
        if family is None:
            return None
        point = _point(operator)
        if (found := family.estimate(point, extrapolate=False)) is not None:
            return GridTime(math.exp(found.log_ms), extrapolated=False)
        found = family.estimate(point, extrapolate=True) if extrapolate else None
        return None if found is None else GridTime(math.exp(found.log_ms), extrapolated=True)

    def exceeded(self, operator: Operator) -> dict[str, tuple[int, int]]:
        """Return the measured range of every axis on which an operator lies outside it; empty where none is known."""
        family = self._families.get(_family(operator))
        return {} if family is None else family.exceeded(_point(operator))

    def lines(self) -> Iterator[tuple[str, list[tuple[Operator, float]]]]:
        """Yield every axis with measured operators that differ along it only, by rising size, and their times in ms."""
        grouped: dict[tuple[Operator, str], list[Operator]] = defaultdict(list)
        for operator in self._times_ms:
            for axis in AXES[operator.kind]:
                grouped[_without(operator, (axis,)), axis].append(operator)
        for (_, axis), members in grouped.items():
            if len(members) > 1:
                members.sort(key=lambda operator: operator.axis(axis))
                yield axis, [(operator, self._times_ms[operator]) for operator in members]


class _Family:
    """Measured operators of one kind, format and function that differ along interpolated axes only."""

    def __init__(self, axes: tuple[str, ...], points: dict[Point, float]) -> None:
        self._axes = axes
        self._points = points
        self._values = [sorted({point[axis] for point in points}) for axis in range(len(axes))]
        lines: dict[tuple[int, Point], list[int]] = defaultdict(list)
        for point in points:
            for axis in range(len(axes)):
                lines[axis, _moved(point, axis, 0)].append(point[axis])
        self._lines = {key: sorted(values) for key, values in lines.items()}

    def exceeded(self, point: Point) -> dict[str, tuple[int, int]]:
        return {
            name: (values[0], values[-1])
            for name, values, size in zip(self._axes, self._values, point, strict=True)
            if not values[0] <= size <= values[-1]
        }

    def estimate(self, point: Point, *, extrapolate: bool) -> _Estimate | None:
        """Interpolate along one axis, else along two, and so on."""
        if not extrapolate and self.exceeded(point):
            return None
        for count in range(1, len(self._axes) + 1):
            orders = itertools.permutations(range(len(self._axes)), count)
            found = [e for order in orders if (e := self._along(point, order, extrapolate=extrapolate)) is not None]
            if found:
                return min(found, key=lambda estimate: estimate.distance)
        return None

    def _along(self, point: Point, order: tuple[int, ...], *, extrapolate: bool) -> _Estimate | None:
        """Interpolate along the first of the axes, between points interpolated along the others."""
        if not order:
            log_ms = self._points.get(point)
            return None if log_ms is None else _Estimate(log_ms, 0.0)
        axis, *others = order
        values = self._lines.get((axis, _moved(point, axis, 0)), []) if not others else self._values[axis]
        place = bisect_left(values, point[axis])
        above = place + 1 if place < len(values) and values[place] == point[axis] else place

        def known(candidates: Iterator[int]) -> Iterator[tuple[int, _Estimate]]:
            for value in candidates:
                estimate = self._along(_moved(point, axis, value), tuple(others), extrapolate=extrapolate)
                if estimate is not None:
                    yield value, estimate

        lower, upper = known(reversed(values[:place])), known(iter(values[above:]))
        low, high = next(lower, None), next(upper, None)
        if low is None or high is None:
            if not extrapolate:
                return None
            ends = (low, next(lower, None)) if high is None else (high, next(upper, None))
            return self._beyond(point[axis], axis, *ends)
        share = math.log(point[axis] / low[0]) / math.log(high[0] / low[0])
        log_ms = (1 - share) * low[1].log_ms + share * high[1].log_ms
        return _Estimate(log_ms, math.log(high[0] / low[0]) + max(low[1].distance, high[1].distance))

    def _beyond(
        self, size: int, axis: int, end: tuple[int, _Estimate] | None, inner: tuple[int, _Estimate] | None
    ) -> _Estimate | None:
        """Go on from the end of a line as it rose between its last two points."""
        if end is None or inner is None:
            return None
        exponent = (end[1].log_ms - inner[1].log_ms) / math.log(end[0] / inner[0])
        exponent = min(max(exponent, 0.0), MAX_EXPONENT.get(self._axes[axis], 1.0))
        log_ratio = math.log(size / end[0])
        distance = abs(log_ratio) + abs(math.log(end[0] / inner[0])) + end[1].distance
        return _Estimate(end[1].log_ms + exponent * log_ratio, distance)


def _moved(point: Point, axis: int, value: int) -> Point:
    return (*point[:axis], value, *point[axis + 1 :])


def _point(operator: Operator) -> Point:
    sizes = dict(operator.axes)
    return tuple(sizes.get(axis, 1) for axis in AXES[operator.kind])


def _family(operator: Operator) -> Operator:
    return _without(operator, AXES[operator.kind])


def _without(operator: Operator, axes: tuple[str, ...]) -> Operator:
    sizes = tuple((name, 0 if name in axes else size) for name, size in operator.axes)
    return Operator(operator.kind, sizes, operator.format, operator.function)
