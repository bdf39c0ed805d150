"""What the holdout says of a front: how far the search flattered it, and which members it can't tell apart.

Shape letters: M members, N examples, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from controller.results import HoldoutCheck, LevelGroup, PairedDifference

_RESAMPLES_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A front member that was scored on the holdout.

    Attributes:
        trial: Number of the trial.
        name: Name for people.
        quality: Metric on the search split.
        holdout_quality: Metric on the holdout.
        low: Lower end of its confidence interval.
        high: Upper end of it.
        per_example: Metric of each example of the holdout.
    """

    trial: int
    name: str
    quality: float
    holdout_quality: float
    low: float
    high: float
    per_example: tuple[float, ...]

    @property
    def gap(self) -> float:
        """Score on the search split less that on the holdout; above 0 where the search flatters."""
        return self.quality - self.holdout_quality

    def overlaps(self, other: "HeldOut") -> bool:
        """Whether the two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


def check_front(
    members: Sequence[HeldOut], *, dense: HeldOut | None, confidence: float, resamples: int
) -> HoldoutCheck | None:
    """Compare a front's scores on the holdout with those of the search and with each other.

    Args:
        members: Front members with scores on the holdout.
        dense: The dense model; None where it has no score on the holdout.
        confidence: Confidence level of the intervals, of those of differences too.
        resamples: Bootstrap resamples behind the intervals of differences.

    Returns:
        None without members.
    """
    if not members:
        return None
    groups = [[members[i] for i in group] for group in level_groups([(m.low, m.high) for m in members])]
    return HoldoutCheck(
        members=len(members),
        confidence=confidence,
        mean_gap=fmean(member.gap for member in members),
        dense_gap=None if dense is None else dense.gap,
        level=tuple(LevelGroup(trials=tuple(m.trial for m in g), names=tuple(m.name for m in g)) for g in groups),
        apart=_apart(members, confidence, resamples),
    )


def level_groups(intervals: Sequence[tuple[float, float]]) -> list[tuple[int, ...]]:
    """Group intervals that all overlap each other: every largest such group of two or more, from low to high.

    Args:
        intervals: (low, high) of each; ends belong to an interval.

    Returns:
        Positions in the order given; one interval may be in several groups.
    """
    ends = [(low, 0, i) for i, (low, _) in enumerate(intervals)]
    ends += [(high, 1, i) for i, (_, high) in enumerate(intervals)]
    found: list[tuple[int, ...]] = []
    inside: set[int] = set()
    grown = False
    for _, closes, i in sorted(ends):
        if not closes:
            inside.add(i)
            grown = True
            continue
        if grown and len(inside) > 1:
            found.append(tuple(sorted(inside)))
        inside.discard(i)
        grown = False
    return found


def paired_intervals(
    per_example_MN: NDArray[np.float64], *, confidence: float, resamples: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap of all differences of means, every resample drawing the same examples for all.

    Args:
        per_example_MN: Metric of each example.
        confidence: Coverage, between 0 and 1.
        resamples: How many samples are drawn with replacement.
        seed: Seed of the draw.

    Returns:
        Lower and upper bounds of mean i less mean j, each of shape (M, M).

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16.
    """
    count, examples = per_example_MN.shape
    generator = np.random.default_rng(seed)
    share_N = np.full(examples, 1 / examples)
    means_RM = np.empty((resamples, count))
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - start)
        drawn_RN = generator.multinomial(examples, share_N, size=size)
        means_RM[start : start + size] = drawn_RN @ per_example_MN.T / examples
    tail = (1 - confidence) / 2
    low_MM, high_MM = np.zeros((count, count)), np.zeros((count, count))
    for i in range(count):
        low_MM[i], high_MM[i] = np.quantile(means_RM[:, i, None] - means_RM, [tail, 1 - tail], axis=0)
    return low_MM, high_MM


def _apart(members: Sequence[HeldOut], confidence: float, resamples: int) -> tuple[PairedDifference, ...]:
    """Differences between members whose own intervals overlap, but whose paired one leaves 0 out."""
    examples = len(members[0].per_example)
    if examples == 0 or any(len(m.per_example) != examples for m in members):
        return ()
    scores_MN = np.array([m.per_example for m in members], dtype=np.float64)
    low_MM, high_MM = paired_intervals(scores_MN, confidence=confidence, resamples=resamples)
    return tuple(
        PairedDifference(
            better=better.name,
            worse=worse.name,
            difference=better.holdout_quality - worse.holdout_quality,
            low=float(low_MM[i, j]),
            high=float(high_MM[i, j]),
        )
        for i, better in enumerate(members)
        for j, worse in enumerate(members)
        if i != j and better.overlaps(worse) and low_MM[i, j] > 0
    )
