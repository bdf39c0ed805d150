"""When a better score on the search split is more than the luck of its examples, on drawn scores."""

import numpy as np
import pytest

from controller.rechecking.flattery import Flattery, flattery_of
from evaluators.scores import Quality


def drawn(right: int, count: int, seed: int) -> Quality:
    """Scores of so many right answers of a number, in any order."""
    answers = np.random.default_rng(seed).permutation([1.0] * right + [0.0] * (count - right))
    return Quality(
        metric="accuracy", value=right / count, per_example=tuple(map(float, answers)), kl_to_dense=0.0, seconds=0.0
    )


def flattery(search: tuple[int, int], holdout: tuple[int, int], count: int) -> Flattery:
    pairs = [(drawn(one, count, 1), drawn(other, count, 2)) for one, other in (search, holdout)]
    found = flattery_of(pairs[0], pairs[1], confidence=0.95, resamples=500)
    assert found is not None
    return found


def test_a_gap_beyond_the_intervals_of_both_splits_is_certain() -> None:
    """Two points more on 200 search rows, twenty fewer on the holdout."""
    found = flattery((184, 180), (140, 180), 200)
    assert found.search == pytest.approx(0.02)
    assert found.holdout == pytest.approx(-0.2)
    assert found.examples == 200
    assert 0.05 < found.margin < 0.2
    assert found.is_certain


@pytest.mark.parametrize(("search", "holdout"), [((184, 180), (178, 180)), ((170, 180), (184, 180))])
def test_luck_and_a_better_holdout_are_none(search: tuple[int, int], holdout: tuple[int, int]) -> None:
    assert not flattery(search, holdout, 200).is_certain


def test_the_same_gap_is_certain_with_more_examples() -> None:
    assert not flattery((92, 90), (86, 90), 100).is_certain
    assert flattery((9200, 9000), (8600, 9000), 10_000).is_certain


def test_scores_of_other_examples_tell_nothing() -> None:
    pair = (drawn(9, 10, 1), drawn(10, 20, 1))
    assert flattery_of(pair, pair, confidence=0.95, resamples=10) is None
