"""Which single changes are tried on few examples first, and what they say of the changes that were not tried."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from controller.samplers.choices import ChoiceGrid, Floats, Options

MOST_PROBES = 96
"""Single changes that are probed; of a larger space every other unit, every third ... is left out."""
_UNKNOWN_LOSS = 0.05

Label = tuple[int, int, int]
"""(unit, parameter, level)"""


def plan_probes(grid: ChoiceGrid, labels: list[Label], *, most: int = MOST_PROBES) -> list[Label]:
    """Choose the changes to probe, the most telling first.

    The last level of each parameter says most, then the one in the middle; what lies between is interpolated.

    Args:
        grid: The space.
        labels: All single changes.
        most: Bound on the probes, 1 or more.
    """
    told = [label for label in labels if _rank(grid, label) is not None]
    stride = 1
    while sum(label[0] % stride == 0 for label in told) > most and stride < grid.units:
        stride += 1
    chosen = [label for label in told if label[0] % stride == 0]
    return sorted(chosen, key=lambda label: (_rank(grid, label), label))[:most]


def point_of(grid: ChoiceGrid, label: Label) -> Options:
    """Return the point at which one parameter of one unit is changed and nothing else."""
    unit, axis, level = label
    point = np.zeros(grid.units, dtype=np.int64)
    for number, option in enumerate(grid.options[unit]):
        if option.levels[axis] == level and sum(option.levels) == level:
            point[unit] = number
    return point


def fill_losses(grid: ChoiceGrid, labels: list[Label], probed: Mapping[Label, float]) -> Floats:
    """Return the expected loss of every single change, from those that were probed.

    Along a parameter losses are interpolated geometrically and never fall; a unit without probes takes those of the
    nearest unit with as many levels; where there are none at all, losses rise with the square of the level.
    """
    axes: dict[tuple[int, int], Floats] = {}
    for unit, axis, level in probed:
        known = axes.setdefault((unit, axis), np.full(_levels(grid, unit, axis), np.nan))
        known[level - 1] = max(probed[unit, axis, level], 1e-6)
    curves = {key: _interpolate(known) for key, known in axes.items()}
    found = np.empty(len(labels))
    for number, (unit, axis, level) in enumerate(labels):
        curve = curves.get((unit, axis))
        if curve is None:
            curve = _nearest(grid, curves, unit, axis)
        found[number] = curve[level - 1]
    return found


def _nearest(grid: ChoiceGrid, curves: Mapping[tuple[int, int], Floats], unit: int, axis: int) -> Floats:
    levels = _levels(grid, unit, axis)
    alike = [key for key, curve in curves.items() if key[1] == axis and len(curve) == levels]
    if not alike:
        return _UNKNOWN_LOSS * (np.arange(1, levels + 1) / levels) ** 2
    return curves[min(alike, key=lambda key: (abs(key[0] - unit), key))]


def _interpolate(known: Floats) -> Floats:
    """Fill the gaps of losses by level (level 0 loses nothing) and make them rise."""
    place = np.arange(1, len(known) + 1, dtype=np.float64)
    is_known = np.isfinite(known)
    if is_known.sum() == 1:
        only = float(known[is_known][0])
        at = float(place[is_known][0])
        filled = only * (place / at) ** 2
    else:
        filled = np.exp(np.interp(np.log(place), np.log(place[is_known]), np.log(known[is_known])))
        first = float(place[is_known][0])
        below = place < first
        filled[below] = float(known[is_known][0]) * (place[below] / first) ** 2
    rising: Floats = np.maximum.accumulate(filled)
    return rising


def _levels(grid: ChoiceGrid, unit: int, axis: int) -> int:
    return len(list(grid.axes[unit].values())[axis]) - 1


def _rank(grid: ChoiceGrid, label: Label) -> int | None:
    """How early a change is probed; None for one that is interpolated."""
    levels = _levels(grid, label[0], label[1])
    if label[2] == levels:
        return 0
    if levels <= 3 or label[2] == (levels + 1) // 2:
        return 1
    return None
