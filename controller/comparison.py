"""`paretrim compare`: the fronts of two studies beside each other, measured from one reference point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from controller.comparison_notes import notes_on, workloads_apart
from controller.errors import UsageError
from controller.front import MAXIMISED, FrontMember, cost_bounds, points_of
from controller.job import Objective
from controller.record import Record
from controller.storage.engine import open_existing
from controller.storage.repository import Repository
from controller.study_summary import StudySummary, summarise
from controller.trial_counts import TrialCounts

_OF_ANY_WORKLOAD = (Objective.QUALITY, Objective.SIZE_BYTES)
"""What does not depend on how many examples and tokens a call has."""
DROPS = (0.01, 0.02, 0.05)
"""Losses of quality against the dense model at which the fastest members are compared, beside what the jobs bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedFront(Record):
    """One of the two fronts.

    Attributes:
        study: Name of the study.
        members: Members of its front.
        trials: Proposals of the sampler with an outcome, probes and baselines apart.
        counts: All finished trials by what became of them.
        hypervolume: What the front covers from the common reference point, in units of that point; None where the
            fronts have no cost that compares.
        coverage: Share of the other front's members that a member of this one dominates or equals, 0 to 1; None
            likewise.
        dense_quality: Quality of the dense model.
        dense_latency_ms: Its latency.
        latency_margin_pct: Per cent within which 90 % of measured times are expected of predicted ones; None where
            nobody measured that, and in studies of earlier versions.
        latency_sentence: The same in words; empty in studies of earlier versions.
    """

    study: str
    members: int
    trials: int
    counts: TrialCounts
    hypervolume: float | None
    coverage: float | None
    dense_quality: float
    dense_latency_ms: float
    latency_margin_pct: float | None = None
    latency_sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestUnder(Record):
    """The best member of each front under one constraint.

    Attributes:
        constraint: The constraint in words.
        shown: Name of the value that decides.
        first: Name of the first front's best member; None where none meets the constraint.
        first_value: Its value.
        second: Name of the second front's; None where none does.
        second_value: Its value.
    """

    constraint: str
    shown: str
    first: str | None
    first_value: float | None
    second: str | None
    second_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Domination(Record):
    """A member, and the members of the other front that it dominates.

    Attributes:
        study: Study of the member.
        member: Its name.
        dominates: Names of the others.
    """

    study: str
    member: str
    dominates: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Record):
    """Two fronts beside each other.

    Attributes:
        metric: Name of the quality metric.
        objectives: What both fronts are compared by.
        apart: Why their latencies do not compare; empty where they do.
        reference: The common reference point by objective: the lower chance, and the dearer dense model's costs.
        first: The first front.
        second: The second front.
        best: Best members under constraints.
        dominations: Which members dominate which.
        notes: What limits the comparison, a line each.
    """

    metric: str
    objectives: tuple[str, ...]
    apart: str = ""
    reference: dict[str, float]
    first: ComparedFront
    second: ComparedFront
    best: tuple[BestUnder, ...]
    dominations: tuple[Domination, ...]
    notes: tuple[str, ...] = ()


def compare_studies(first: str, second: str, storage: str, *, other_storage: str | None = None) -> Comparison:
    """Compare the fronts of two studies.

    Args:
        first: Name of a study.
        second: Name of another.
        storage: URL of the database.
        other_storage: URL of the second one's database; None where both are in one.

    Raises:
        UsageError: A study is not there or has no front, their metrics differ, or their objectives have no cost in
            common.
    """
    summaries = (
        summarise(Repository(open_existing(storage)), first),
        summarise(Repository(open_existing(other_storage or storage)), second),
    )
    for summary in summaries:
        if summary.dense is None or not summary.front:
            name = summary.record.name
            raise UsageError(f"study {name!r} has no front to compare yet; search first: `paretrim search` its job")
    return compare(*summaries)


def compare(first: StudySummary, second: StudySummary) -> Comparison:
    """Compare two studies that have fronts; see `compare_studies`."""
    if first.metric != second.metric:
        raise UsageError(
            f"fronts are compared by one metric; {first.record.name!r} has {first.metric}, {second.record.name!r} has "
            f"{second.metric}; compare studies of one task and one measure of quality"
        )
    objectives = tuple(o for o in first.job.objectives if o in second.job.objectives)
    if len(objectives) < 2:
        raise UsageError(
            f"fronts are compared by quality and a cost that both were searched for; {first.record.name!r} has "
            f"{', '.join(first.job.objectives)}, {second.record.name!r} has {', '.join(second.job.objectives)}"
        )
    apart = workloads_apart(first, second)
    if apart:
        objectives = tuple(o for o in objectives if o in _OF_ANY_WORKLOAD)
    reference = _reference(first, second, objectives) if len(objectives) > 1 else {}
    return Comparison(
        metric=first.metric,
        objectives=tuple(map(str, objectives)),
        apart=apart,
        reference={str(objective): value for objective, value in reference.items()},
        first=_compared(first, second, objectives, reference),
        second=_compared(second, first, objectives, reference),
        best=tuple(_best_rows(first, second, apart=bool(apart))),
        dominations=(*_dominations(first, second, objectives), *_dominations(second, first, objectives)),
        notes=tuple(notes_on(first, second, apart=bool(apart))),
    )


def _dense(summary: StudySummary) -> FrontMember:
    assert summary.dense is not None
    return summary.dense


def _reference(first: StudySummary, second: StudySummary, objectives: Sequence[Objective]) -> dict[Objective, float]:
    chance = min(first.chance_quality, second.chance_quality)
    dense = (_dense(first), _dense(second))
    return {o: chance if o in MAXIMISED else max(member.value(o) for member in dense) for o in objectives}


def _compared(
    own: StudySummary, other: StudySummary, objectives: Sequence[Objective], reference: dict[Objective, float]
) -> ComparedFront:
    dense = _dense(own)
    volume, coverage = _covered(own, other, objectives, reference) if reference else (None, None)
    return ComparedFront(
        study=own.record.name,
        members=len(own.front),
        trials=own.counts.trials,
        counts=own.counts,
        hypervolume=volume,
        coverage=coverage,
        dense_quality=dense.quality,
        dense_latency_ms=dense.latency_ms,
        latency_margin_pct=own.latency_margin_pct,
        latency_sentence=own.latency_sentence,
    )


def _covered(
    own: StudySummary, other: StudySummary, objectives: Sequence[Objective], reference: dict[Objective, float]
) -> tuple[float, float]:
    """Hypervolume of a front, and the share of the other one that it covers."""
    import moocore

    scale = np.array(
        [
            max(_dense(own).quality, _dense(other).quality) - reference[o] if o in MAXIMISED else reference[o]
            for o in objectives
        ]
    )
    origin = np.array([reference[o] if o in MAXIMISED else 0.0 for o in objectives])
    points = (points_of(own.front, objectives) - origin) / scale
    corner = np.array([0.0 if o in MAXIMISED else 1.0 for o in objectives])
    volume = moocore.hypervolume(points, ref=corner, maximise=[o in MAXIMISED for o in objectives])
    covered = sum(any(_as_good(mine, theirs, objectives) for mine in own.front) for theirs in other.front)
    return float(volume), covered / len(other.front)


def _as_good(one: FrontMember, other: FrontMember, objectives: Sequence[Objective]) -> bool:
    """Whether one member is as good as the other in every objective."""
    return all(one.value(o) >= other.value(o) if o in MAXIMISED else one.value(o) <= other.value(o) for o in objectives)


def _dominations(own: StudySummary, other: StudySummary, objectives: Sequence[Objective]) -> Iterator[Domination]:
    for mine in own.front if len(objectives) > 1 else ():
        worse = tuple(
            theirs.name
            for theirs in other.front
            if _as_good(mine, theirs, objectives) and not _as_good(theirs, mine, objectives)
        )
        if worse:
            yield Domination(study=own.record.name, member=mine.name, dominates=worse)


def _best_rows(first: StudySummary, second: StudySummary, *, apart: bool) -> Iterator[BestUnder]:
    """The fastest within losses of quality, then the best in quality under every bound on costs that a job names.

    Of studies whose calls differ, only what does not depend on them.
    """
    floor = max(_dense(first).quality, _dense(second).quality)
    drops = {drop for s in (first, second) if (drop := s.job.constraints.max_quality_drop) is not None}
    for drop in () if apart else sorted({*DROPS, *drops}):
        found = [_fastest(summary.front, floor - drop) for summary in (first, second)]
        values = [None if member is None else member.latency_ms for member in found]
        yield _row(f"{first.metric} at most {drop:g} below dense", "latency_ms", found, values)
    bounds = {(o, value) for s in (first, second) for o, value in cost_bounds(s.job.constraints).items()}
    for objective, value in sorted(bound for bound in bounds if not apart or bound[0] in _OF_ANY_WORKLOAD):
        found = [_most_accurate(summary.front, objective, value) for summary in (first, second)]
        values = [None if member is None else member.quality for member in found]
        yield _row(f"{objective} at most {value:g}", "quality", found, values)


def _row(constraint: str, shown: str, found: Sequence[FrontMember | None], values: Sequence[float | None]) -> BestUnder:
    names = [None if member is None else member.name for member in found]
    return BestUnder(
        constraint=constraint,
        shown=shown,
        first=names[0],
        first_value=values[0],
        second=names[1],
        second_value=values[1],
    )


def _fastest(front: Sequence[FrontMember], floor: float) -> FrontMember | None:
    good = [member for member in front if member.quality >= floor]
    return min(good, key=lambda m: (m.latency_ms, -m.quality), default=None)


def _most_accurate(front: Sequence[FrontMember], objective: Objective, bound: float) -> FrontMember | None:
    cheap = [member for member in front if member.value(objective) <= bound]
    return max(cheap, key=lambda m: (m.quality, -m.latency_ms), default=None)
