"""The holdout tells members of a front apart, or says that it can't."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rechecking.recheck import HeldOut, check_front, level_groups, paired_intervals
from evaluators.confidence import bootstrap_interval

ENDS = st.integers(0, 12)


def held(trial: int, quality: float, per_example: list[float]) -> HeldOut:
    low, high = bootstrap_interval(per_example)
    return HeldOut(
        trial=trial,
        name=f"trial {trial}",
        quality=quality,
        holdout_quality=sum(per_example) / len(per_example),
        low=low,
        high=high,
        per_example=tuple(per_example),
    )


def test_groups_of_overlapping_intervals_by_hand() -> None:
    assert level_groups([(0.9, 0.95), (0.8, 0.91), (0.7, 0.8), (0.1, 0.2)]) == [(1, 2), (0, 1)]
    assert level_groups([(0, 1), (0.2, 0.3), (0.4, 0.5)]) == [(0, 1), (0, 2)]
    assert level_groups([(0.5, 0.5), (0.5, 0.5)]) == [(0, 1)]
    assert level_groups([(0, 1)]) == level_groups([]) == []


@given(st.lists(st.tuples(ENDS, ENDS).map(sorted), max_size=7))
def test_groups_are_the_largest_sets_that_share_a_point(pairs: list[list[int]]) -> None:
    """Intervals that overlap pairwise have a common point, and some interval ends there."""
    points = {end for pair in pairs for end in pair}
    sets = {frozenset(i for i, (low, high) in enumerate(pairs) if low <= point <= high) for point in points}
    largest = {s for s in sets if len(s) > 1 and not any(s < other for other in sets)}
    found = level_groups([(low, high) for low, high in pairs])
    assert {frozenset(group) for group in found} == largest
    assert len(found) == len(largest)


def test_paired_intervals_are_those_of_differences_example_by_example() -> None:
    """The same draws of a naive bootstrap: a difference of means is the mean difference."""
    scores_MN = np.random.default_rng(0).random((3, 40))
    low_MM, high_MM = paired_intervals(scores_MN, confidence=0.9, resamples=200, seed=3)
    generator = np.random.default_rng(3)
    draws = [generator.multinomial(40, np.full(40, 1 / 40), size=size) for size in (64, 64, 64, 8)]
    for i in range(3):
        for j in range(3):
            means = np.concatenate([drawn @ (scores_MN[i] - scores_MN[j]) / 40 for drawn in draws])
            expected = np.quantile(means, [0.05, 0.95])
            assert [low_MM[i, j], high_MM[i, j]] == pytest.approx(list(expected), abs=1e-12)


def test_level_members_and_what_pairing_still_tells_apart() -> None:
    """The second errs wherever the first does, and on eight examples more: pairing sees it, the intervals don't."""
    first = [1.0] * 90 + [0.0] * 10
    second = [1.0] * 82 + [0.0] * 18
    other = [0.0] * 20 + [1.0] * 80
    poor = [1.0] * 20 + [0.0] * 80
    members = [held(1, 0.93, first), held(2, 0.84, second), held(3, 0.8, other), held(4, 0.2, poor)]
    check = check_front(members, dense=held(0, 0.95, [1.0] * 95 + [0.0] * 5), confidence=0.95, resamples=1000)
    assert check is not None
    assert [group.trials for group in check.level] == [(1, 2, 3)]
    assert [(d.better, d.worse) for d in check.apart] == [("trial 1", "trial 2")]
    assert check.apart[0].difference == pytest.approx(0.08)
    assert 0 < check.apart[0].low < 0.08 < check.apart[0].high
    assert check.mean_gap == pytest.approx((0.03 + 0.02 + 0 + 0) / 4)
    assert check.dense_gap == pytest.approx(0)
    assert check.sentences[0] == (
        "search score less holdout score: +0.0125 on average over 4 front members; the dense model's: +0.0000"
    )
    assert check.sentences[1] == "level on the holdout, as their 95 % intervals overlap: trial 1, trial 2, trial 3"
    assert "still apart, compared example by example: trial 1 above trial 2 by 0.0800 (" in check.sentences[2]


def test_nothing_to_compare() -> None:
    assert check_front([], dense=None, confidence=0.95, resamples=100) is None
    apart = [held(1, 1.0, [1.0] * 50), held(2, 0.0, [0.0] * 50)]
    check = check_front(apart, dense=None, confidence=0.9, resamples=100)
    assert check is not None
    assert check.sentences[1] == "no two members are level: no 90 % intervals on the holdout overlap"
    assert check.level == check.apart == ()
    alone = check_front(apart[:1], dense=None, confidence=0.9, resamples=100)
    assert alone is not None
    assert alone.sentences == ("search score less holdout score: +0.0000 on average over 1 front member",)
