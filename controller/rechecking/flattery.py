"""Whether the search split flatters a policy by more than the luck of its examples explains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.confidence import bootstrap_interval
from evaluators.scores import Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Flattery:
    """A policy beside the dense model, on both splits.

    Attributes:
        search: Its quality less the dense model's on the search split.
        holdout: The same on the holdout.
        margin: Within how much of each other the two are expected, by the intervals of both differences.
        examples: Examples of the search split.
    """

    search: float
    holdout: float
    margin: float
    examples: int

    @property
    def is_certain(self) -> bool:
        """Whether the search split shows the policy better by more than the margin."""
        return self.search - self.holdout > self.margin


def flattery_of(
    search: tuple[Quality, Quality], holdout: tuple[Quality, Quality], *, confidence: float, resamples: int
) -> Flattery | None:
    """Compare what a policy has over the dense model on the search split and on the holdout.

    The policy and the dense model are compared example by example, so that examples that are hard for both count for
    neither. The splits share no example, so that the margin of their difference is the root of the sum of squares of
    the half widths of both intervals.

    Args:
        search: Scores of the policy and of the dense model on the search split.
        holdout: The same on the holdout.
        confidence: Confidence level of the intervals.
        resamples: Bootstrap resamples behind them.

    Returns:
        None where one of the pairs was not scored on the same examples.
    """
    paired = [_paired(*pair) for pair in (search, holdout)]
    if any(len(differences) == 0 for differences in paired):
        return None
    halves = []
    for differences in paired:
        low, high = bootstrap_interval([float(d) for d in differences], confidence=confidence, resamples=resamples)
        halves.append((high - low) / 2)
    return Flattery(
        search=search[0].value - search[1].value,
        holdout=holdout[0].value - holdout[1].value,
        margin=math.hypot(*halves),
        examples=len(paired[0]),
    )


def _paired(one: Quality, other: Quality) -> NDArray[np.float64]:
    if len(one.per_example) != len(other.per_example):
        return np.zeros(0)
    return np.asarray(one.per_example, dtype=np.float64) - np.asarray(other.per_example, dtype=np.float64)
