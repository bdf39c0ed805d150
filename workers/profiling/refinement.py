"""Which of many widths to measure: a coarse grid, split wherever the time between two points is not as interpolated."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evaluators.latency.interpolation import AXES, TimeGrid
from evaluators.latency.table import Entry
from evaluators.latency.workload import Operator, OperatorKind

TOLERANCE = 0.03
"""Relative error of an interpolated time up to which a cell is not split."""
FEW_WIDTHS = 6
"""So many widths or fewer are all measured."""
ALIGNED = 64
"""Multiples of more are no better to a kernel."""
_CALL_AXES = frozenset({"tokens", "batch", "sequence"})

Times = Mapping[Operator, Entry]
Cell = tuple[int, int, int]
"""An axis, and two widths on it that follow each other in the grid."""


class Block:
    """Operators that differ along their width axes only, and have all combinations of some widths.

    Args:
        members: The operators, by their widths.
    """

    def __init__(self, members: Mapping[tuple[int, ...], Operator]) -> None:
        self._members = dict(members)
        axes = range(len(next(iter(members))))
        self._widths = [sorted({point[axis] for point in members}) for axis in axes]
        self._grid = [_coarse(widths) for widths in self._widths]
        self._verified: set[Cell] = set()

    def chosen(self) -> tuple[Operator, ...]:
        """Return the operators on the grid as it is now; every other one lies between some of them."""
        return tuple(self._members[point] for point in itertools.product(*self._grid))

    def trials(self) -> tuple[Operator, ...]:
        """Return operators inside of cells, on which interpolation is to be tried."""
        found = [self._tried(cell[0], width) for cell, widths in self._open_cells() for width in widths]
        return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))

    def split(self, times: Times) -> None:
        """Take the tried widths of a cell into the grid where interpolation erred, and close the cell elsewhere.

        Args:
            times: Rows of all that is chosen and tried.
        """
        grid = TimeGrid({operator: times[operator].median_ms for operator in self.chosen()})
        added: list[tuple[int, int]] = []
        for cell, widths in list(self._open_cells()):
            axis = cell[0]
            if any(_errs(grid, times[operator]) for width in widths for operator in self._tried(axis, width)):
                added += [(axis, width) for width in widths]
            else:
                self._verified.add(cell)
        for axis, width in added:
            self._grid[axis] = sorted({*self._grid[axis], width})

    def _open_cells(self) -> Iterator[tuple[Cell, tuple[int, ...]]]:
        """Cells that hold widths which nobody tried, and the widths to try."""
        for axis, grid in enumerate(self._grid):
            for low, high in itertools.pairwise(grid):
                inner = [width for width in self._widths[axis] if low < width < high]
                if inner and (axis, low, high) not in self._verified:
                    yield (axis, low, high), tuple(sorted({_middle(inner), _middle(inner, aligned=False)}))

    def _tried(self, axis: int, width: int) -> tuple[Operator, ...]:
        """The operators of a width on one axis, at both ends of the others."""
        ends = [(width,) if n == axis else (grid[0], grid[-1]) for n, grid in enumerate(self._grid)]
        return tuple(dict.fromkeys(self._members[point] for point in itertools.product(*ends)))


def blocks_of(operators: Iterable[Operator]) -> tuple[Block, ...]:
    """Sort operators into blocks.

    Args:
        operators: What a space reaches, under one or more workloads.
    """
    planes: dict[Operator, dict[tuple[int, ...], Operator]] = defaultdict(dict)
    for operator in operators:
        axes = width_axes(operator.kind)
        sizes = tuple((name, 0 if name in axes else size) for name, size in operator.axes)
        plane = Operator(operator.kind, sizes, operator.format, operator.function)
        planes[plane][tuple(operator.axis(name) for name in axes)] = operator
    return tuple(Block(members) for plane in planes.values() for members in _products(plane))


def width_axes(kind: OperatorKind) -> tuple[str, ...]:
    """Return the axes of an operator that a policy changes, and that its time is interpolated along."""
    return tuple(name for name in AXES[kind] if name not in _CALL_AXES)


def _products(plane: Mapping[tuple[int, ...], Operator]) -> Iterator[dict[tuple[int, ...], Operator]]:
    """Cut a plane so that each part holds all combinations of its widths: first widths with the same second ones."""
    if () in plane:
        yield dict(plane)
        return
    seconds: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for first, *others in plane:
        seconds[first].append(tuple(others))
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
    for first, found in seconds.items():
        alike[tuple(sorted(found))].append(first)
    for shared, firsts in alike.items():
        points = [(first, *others) for first in firsts for others in shared]
        yield {point: plane[point] for point in points}


def _coarse(widths: Sequence[int]) -> list[int]:
    """Both ends and three widths between them, or all where they are few."""
    if len(widths) <= FEW_WIDTHS:
        return list(widths)
    middle = _middle(widths[1:-1])
    halves = [w for w in widths[1:-1] if w < middle], [w for w in widths[1:-1] if w > middle]
    return sorted({widths[0], middle, widths[-1], *(_middle(half) for half in halves if half)})


def _middle(widths: Sequence[int], *, aligned: bool = True) -> int:
    """The width near the middle that kernels like best, or least: by the power of two that divides it."""
    centre = math.log(widths[0] * widths[-1]) / 2
    nearest = sorted(widths, key=lambda width: abs(math.log(width) - centre))[: max(3, len(widths) // 2)]
    sign = 1 if aligned else -1
    return max(nearest, key=lambda width: sign * min(width & -width, ALIGNED))


def _errs(grid: TimeGrid, entry: Entry) -> bool:
    """Whether interpolation misses a time by more than 3 %, or than half the time's own spread where that is more."""
    found = grid.find(entry.operator)
    if found is None:
        return True
    return abs(found.time_ms / entry.median_ms - 1) > max(TOLERANCE, (entry.relative_spread or 0.0) / 2)
