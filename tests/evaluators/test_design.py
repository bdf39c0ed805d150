"""The models that a correction is fitted on: an exhaustive search over small sets, and what a design is for."""

from itertools import combinations

import numpy as np
import pytest

from evaluators.latency.design import shares_of_time, surest, variance


def naive_variance(features: np.ndarray, members: tuple[int, ...]) -> float:
    """Mean of x' (X'X + ridge)^-1 x over all candidates."""
    information = sum(np.outer(features[m], features[m]) for m in members) + 1e-3 * np.eye(features.shape[1])
    return float(np.mean([x @ np.linalg.inv(information) @ x for x in features]))


@pytest.mark.parametrize("seed", range(4))
def test_the_variance_is_near_that_of_the_best_set(seed: int) -> None:
    features = np.random.default_rng(seed).uniform(0, 1, (11, 3))
    members = surest(features, 4, kept=(0,))
    assert members[0] == 0
    assert len(set(members)) == 4
    assert variance(features, members) == pytest.approx(naive_variance(features, tuple(members)))
    best = min(naive_variance(features, (0, *rest)) for rest in combinations(range(1, 11), 3))
    assert variance(features, members) <= 1.05 * best


def test_a_term_that_one_candidate_alone_has_is_measured() -> None:
    features = np.vstack([np.column_stack([np.ones(9), np.zeros(9)]), [0.5, 0.5]])
    assert 9 in surest(features, 3)


def test_few_candidates_are_all_members() -> None:
    assert sorted(surest(np.eye(3), 8, kept=(2,))) == [0, 1, 2]


def test_terms_become_shares_of_the_time_beside_the_call() -> None:
    # Products of one format, attention, others, number of operators and of changes, call.
    terms = np.array([[6.0, 0, 2, 9, 3, 1], [1.0, 0, 1, 5, 2, 1]])
    # The median time is 5 ms, of which the call is worth a twentieth; nobody has attention.
    np.testing.assert_allclose(shares_of_time(terms), [[6 / 8, 2 / 8, 0.25 / 8], [1 / 2, 1 / 2, 0.25 / 2]])
