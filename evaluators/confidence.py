"""Confidence in a mean over examples: intervals, and tests of what a mean can still become.

Shape letters: N examples of a split, A possible numbers of answers, K outcomes.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def bootstrap_interval(
    per_example: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of the mean.

    Args:
        per_example: The metric of each example; at least one, all finite.
        confidence: Coverage, between 0 and 1.
        resamples: How many samples are drawn with replacement.
        seed: Seed of the draw.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: No examples, or one that is not finite.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    values = np.asarray(per_example, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs at least one example, all finite; got {values.size} examples")
    levels, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(values.size, counts / values.size, size=resamples)
    means = drawn @ levels / values.size
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def reach_p_value(
    reference_N: NDArray[np.bool_], candidate_N: NDArray[np.bool_], seen_N: NDArray[np.bool_], needed: int
) -> float:
    """Test whether a candidate may have enough right answers on a split of which a random part was seen.

    The split is finite and its examples are drawn without replacement, so nothing is approximated: where the reference
    is right and where it is wrong, the numbers of the candidate's wrong and right answers are hypergeometric. The
    p-value is the largest over all numbers of answers that the candidate may have on the whole split; it is 0 where
    not even right answers on all that was not seen would do.

    Args:
        reference_N: Where a reference is right, known for all examples; the more alike the candidate is, the sharper
            the test.
        candidate_N: Where the candidate is right; counts only where seen.
        seen_N: Which examples were seen: drawn at random, in a way that does not depend on the candidate.
        needed: Right answers that the candidate needs on the whole split.

    Returns:
        An upper bound on the probability that a candidate with as many right answers as needed looks so bad: among
        candidates that do have them, at most a share of q gets a value of q or less.

    Reference:
        Barnard, "Significance tests for 2x2 tables", Biometrika 34, 1947, for the largest p-value over a nuisance
        parameter; here with hypergeometric strata.
    """
    lost = int((seen_N & reference_N & ~candidate_N).sum())
    won = int((seen_N & ~reference_N & candidate_N).sum())
    rights, wrongs = int(reference_N.sum()), int((~reference_N).sum())
    seen_rights, seen_wrongs = int((seen_N & reference_N).sum()), int((seen_N & ~reference_N).sum())
    # With b answers won in all, at most b + rights - needed may be lost.
    won_A = np.arange(won, wrongs - (seen_wrongs - won) + 1)
    lost_A = np.minimum(won_A + rights - needed, rights - (seen_rights - lost))
    possible_A = lost_A >= lost
    if not possible_A.any():
        return 0.0
    if seen_rights == 0:
        return 1.0
    lost_AK = _hypergeometric(rights, lost_A[possible_A], seen_rights)
    won_AK = _hypergeometric(wrongs, won_A[possible_A], seen_wrongs)
    # Outcomes are as bad as this one where the estimate of answers lost less those won is as large.
    per_lost, per_won = rights / seen_rights, wrongs / seen_wrongs if seen_wrongs else 0.0
    observed = lost * per_lost - won * per_won
    at_least = np.ceil((observed + np.arange(seen_wrongs + 1) * per_won) / per_lost - 1e-9).astype(int)
    tail_AK = np.cumsum(lost_AK[:, ::-1], axis=1)[:, ::-1]
    tail_AK = np.concatenate([tail_AK, np.zeros((len(tail_AK), 1))], axis=1)
    found = (won_AK * tail_AK[:, np.clip(at_least, 0, seen_rights + 1)]).sum(1).max()
    return min(1.0, float(found))


def mean_p_value(differences: NDArray[np.float64], examples: int, bound: float) -> float:
    """Test whether the mean difference over a split may be as small as a bound, having seen a random part of it.

    A one-sided t test with the correction for a finite split. It is approximate: it takes means of so many examples to
    be normal, which for scores without bounds nothing short of assumptions could replace.

    Args:
        differences: Of the examples that were seen, 2 or more.
        examples: Examples of the split.
        bound: What the mean would have to be at most.

    Returns:
        Probability of so large a mean if the true one is the bound.

    Reference:
        Cochran, Sampling Techniques (1977), section 2.6, for the finite split; Wallace, "Bounds on normal
        approximations to Student's and the chi-square distributions", Ann. Math. Statist. 30, 1959, for the tail.
    """
    count = len(differences)
    spread = float(differences.std(ddof=1)) * math.sqrt(max(0.0, 1 - count / examples) / count)
    excess = float(differences.mean()) - bound
    if spread == 0:
        return 1.0 if excess <= 0 else 0.0
    t, freedom = excess / spread, count - 1
    z = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return 1 - NormalDist().cdf(math.copysign(z, t))


def _hypergeometric(population: int, marked_A: NDArray[np.int_], drawn: int) -> NDArray[np.float64]:
    """Probabilities of 0 to `drawn` marked ones among those drawn without replacement; shape (A, K)."""
    log_factorial = _log_factorials(population)

    def log_choose(of: NDArray[np.int_], taken: NDArray[np.int_]) -> NDArray[np.float64]:
        inside = (taken >= 0) & (taken <= of)
        few = np.where(inside, taken, 0)
        found = log_factorial[of] - log_factorial[few] - log_factorial[of - few]
        return np.where(inside, found, -np.inf)

    marked_AK, found_AK = np.broadcast_arrays(marked_A[:, None], np.arange(drawn + 1)[None, :])
    whole = log_choose(np.array([population]), np.array([drawn]))
    return np.exp(log_choose(marked_AK, found_AK) + log_choose(population - marked_AK, drawn - found_AK) - whole)


@lru_cache(maxsize=8)
def _log_factorials(largest: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, largest + 1)))])
