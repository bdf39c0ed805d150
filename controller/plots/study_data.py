"""What the script of a study's page draws: points, axes, units and formats as plain JSON."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from controller.plots.picture import kind_of
from controller.report_details import ReportDetails
from controller.study_view import PointState, PointView, StudyView, UnitView, number, size_text

MOST_TIMES = 200_000
"""Times by unit up to which every point has them; of larger studies the front and the baselines do."""


def placed_points(view: StudyView) -> list[PointView]:
    """Points that have a place on the page: all of a known latency. Those without a score stand below the plot."""
    return [p for p in view.points if p.latency_ms is not None and math.isfinite(p.latency_ms)]


def page_data(view: StudyView, points: Sequence[PointView], details: ReportDetails) -> dict[str, Any]:
    """Return all that the page's script reads.

    Args:
        view: The study.
        points: Its points that have a place, in the order in which the page's tables number them.
        details: Order and times of the units, as far as they are known.
    """
    units = _units(points, details.units)
    used = {choice.format: choice.weight_bits for p in points for choice in p.policy.values()}
    formats = sorted(used.items(), key=lambda entry: (-entry[1], entry[0]))
    place = {name: index for index, (name, _) in enumerate(formats)}
    costs = _costs(view, points)
    few = len(points) * len(units) <= MOST_TIMES
    headline = view.headline
    bounds = view.bounds
    return {
        "metric": view.metric,
        "min_quality": bounds.min_quality,
        "min_quality_text": "" if bounds.min_quality is None else f"at least {number(bounds.min_quality)}",
        "costs": [cost.head for cost in costs],
        "points": [
            {
                **_point(view, point),
                "x": [cost.of(point) for cost in costs],
                "policy": [_position(point, name, choices) for name, (_, choices) in units.items()],
                "times": _times(details, list(units), point) if few or point.on_front or not _is_trial(point) else None,
            }
            for point in points
        ],
        "volume": [v if math.isfinite(v) else None for v in view.hypervolume_by_trial],
        "units": [
            {"name": name, "groups": groups, "choices": [[keep, place[form]] for keep, form in choices]}
            for name, (groups, choices) in units.items()
        ],
        "rows": _rows(list(units)),
        "formats": [{"name": name, "bits": bits} for name, bits in formats],
        "chosen": next((i for i, p in enumerate(points) if p is headline), None),
    }


class _Cost:
    """One choice of the horizontal axis."""

    def __init__(self, title: str, value: Callable[[PointView], float | None], bound: float | None, text: str) -> None:
        self._value = value
        self.head = {"title": title, "bound": bound, "bound_text": text}

    def of(self, point: PointView) -> float | None:
        value = self._value(point)
        return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")


def _costs(view: StudyView, points: Sequence[PointView]) -> list[_Cost]:
    """Latency and size, and what else the job names."""
    bounds = view.bounds
    most_ms = bounds.max_latency_ms
    found = [_Cost("latency (ms)", lambda p: p.latency_ms, most_ms, f"at most {number(most_ms)} ms")]
    found.append(_bytes("size", lambda p: p.size_bytes, bounds.max_size_bytes, points))
    if view.names_energy:
        heading, most_mj = view.further_headings[0], bounds.max_energy_mj
        found.append(_Cost(heading, lambda p: p.energy_mj, most_mj, f"at most {number(most_mj)} mJ"))
    if view.names_memory:
        found.append(_bytes("peak memory", lambda p: p.peak_memory_bytes, bounds.max_peak_memory_bytes, points))
    return found


def _bytes(
    name: str, value: Callable[[PointView], int | None], bound: int | None, points: Sequence[PointView]
) -> _Cost:
    top = max((value(p) or 0 for p in points), default=0)
    unit, scale = next(((u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if top >= s), ("B", 1.0))

    def scaled(point: PointView) -> float | None:
        size = value(point)
        return None if size is None else size / scale

    return _Cost(f"{name} ({unit})", scaled, None if bound is None else bound / scale, f"at most {size_text(bound)}")


def _is_trial(point: PointView) -> bool:
    return kind_of(point) not in ("dense", "uniform")


def _key(choice: UnitView) -> tuple[int, str]:
    return choice.keep, choice.format


def _position(point: PointView, unit: str, choices: list[tuple[int, str]]) -> int | None:
    choice = point.policy.get(unit)
    return None if choice is None else choices.index(_key(choice))


def _units(points: Sequence[PointView], order: Sequence[str]) -> dict[str, tuple[int, list[tuple[int, str]]]]:
    """Units by name: their groups, and the choices that occur."""
    found: dict[str, tuple[int, list[tuple[int, str]]]] = {}
    for point in points:
        for name, choice in point.policy.items():
            _, choices = found.setdefault(name, (choice.groups, []))
            if _key(choice) not in choices:
                choices.append(_key(choice))
    place = {name: number for number, name in enumerate(order)}
    return {name: found[name] for name in sorted(found, key=lambda n: (place.get(n, len(place)), _by_number(n)))}


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _rows(units: list[str]) -> list[dict[str, Any]]:
    """Put units of one sort into one strip: by the last part of their names, where that is a word that repeats."""
    sorts: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        sorts.setdefault(unit.rpartition(".")[2], []).append(index)
    if len(sorts) > 6 or len(sorts) == len(units) or any(sort.isdecimal() for sort in sorts):
        return [{"name": "all units", "units": list(range(len(units)))}]
    return [{"name": name, "units": indices} for name, indices in sorts.items()]


def _times(details: ReportDetails, units: Sequence[str], point: PointView) -> list[float] | None:
    """Times of the units, then of all else."""
    times = details.unit_times.get(point.as_policy.digest) if details.unit_times else None
    if times is None or not set(units) <= set(details.units):
        return None
    by_name = dict(zip(details.units, times, strict=False))
    shown = [by_name[unit] for unit in units]
    return [float(f"{time:.4g}") for time in (*shown, max(0.0, sum(times) - sum(shown)))]


def _point(view: StudyView, point: PointView) -> dict[str, Any]:
    scored = point.drawable
    low, high = (v if v is not None and math.isfinite(v) else None for v in (point.quality_low, point.quality_high))
    return {
        "kind": kind_of(point) if scored else "unscored",
        "name": point.name,
        "on_front": point.on_front and scored,
        "knee": point.knee,
        "y": point.quality if scored else None,
        "low": low,
        "high": high,
        "hover": [point.label, *_lines(view, point), point.policy_summary],
        "scores": [", ".join(_lines(view, point)), point.policy_summary],
    }


def _lines(view: StudyView, point: PointView) -> list[str]:
    quality = f"{view.metric} {point.quality_text}" if point.drawable else _why_unscored(point)
    if point.share < 1 and point.drawable:
        quality += f", estimated on {point.share:.0%} of the examples"
    held = [] if point.holdout_quality is None else [f"holdout {point.holdout_text}"]
    further = (f"{head} {text}" for head, text in zip(view.further_headings, view.further_texts(point), strict=True))
    costs = [f"latency {number(point.latency_ms)} ms", f"size {size_text(point.size_bytes)}", *further]
    return [quality, *held, *costs, *([] if point.feasible else ["outside the constraints"])]


def _why_unscored(point: PointView) -> str:
    if point.state is PointState.FAILED:
        return f"failed: {point.failure or 'no reason recorded'}"
    if point.state is PointState.RUNNING:
        return "not scored yet"
    return "not scored, as its costs alone break a constraint" if not point.feasible else "no score"
