"""The choice of an exit, against trying every threshold of every block."""

import numpy as np
import pytest

from workers.export.early_exit.choice import LEAST_GAIN, Candidate, choose_exit


def drawn(seed, *, blocks=3, count=40, ties=False):
    generator = np.random.default_rng(seed)
    whole = (generator.random(count) < 0.9).astype(float)
    found = []
    for block in range(blocks):
        entropy = generator.random(count)
        score = (generator.random(count) < 0.95 - 0.5 * entropy).astype(float)
        entropy = np.round(entropy, 1) if ties else entropy
        ms = 1.0 + block
        found.append(Candidate(block=str(block), entropy_N=entropy, score_N=score, early_ms=ms, late_ms=blocks + 1.1))
    return found, whole


def naive(candidates, whole, tolerance):
    """Least expected latency over all blocks and all thresholds at which someone leaves."""
    best = None
    for candidate in candidates:
        for threshold in candidate.entropy_N:
            leaves = candidate.entropy_N <= threshold
            lost = sum(max(w - s, 0) for leaf, s, w in zip(leaves, candidate.score_N, whole, strict=True) if leaf)
            expected = np.where(leaves, candidate.early_ms, candidate.late_ms).mean()
            if lost / len(whole) <= tolerance + 1e-9:
                best = expected if best is None else min(best, expected)
    return best


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("tolerance", [0.0, 0.03, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_of_any_block_is_cheaper(seed, tolerance, ties):
    candidates, whole = drawn(seed, ties=ties)
    wanted = naive(candidates, whole, tolerance)
    choice = choose_exit(candidates, whole, whole_ms=4.0, tolerance=tolerance)
    if wanted is None or wanted > (1 - LEAST_GAIN) * 4.0:
        assert choice is None
        return
    assert choice is not None
    assert choice.expected_ms == pytest.approx(wanted)
    leaves = choice.candidate.entropy_N <= choice.threshold_nats
    assert choice.share == pytest.approx(leaves.mean())
    assert choice.quality == pytest.approx(np.where(leaves, choice.candidate.score_N, whole).mean())
    assert choice.quality >= whole.mean() - tolerance - 1e-9


def test_the_threshold_lies_halfway_to_the_first_that_stays():
    candidate = Candidate(
        block="b", entropy_N=np.array([0.5, 0.1, 0.3]), score_N=np.array([0.0, 1.0, 1.0]), early_ms=1.0, late_ms=4.0
    )
    choice = choose_exit([candidate], np.ones(3), whole_ms=4.0, tolerance=0.1)
    assert choice is not None
    assert choice.threshold_nats == pytest.approx(0.4)
    assert (choice.share, choice.expected_ms) == (pytest.approx(2 / 3), pytest.approx(2.0))


def test_an_exit_that_gains_less_than_a_branch_costs_is_none():
    candidate = Candidate(
        block="b", entropy_N=np.arange(100.0), score_N=np.r_[1.0, np.zeros(99)], early_ms=1.0, late_ms=4.0
    )
    assert choose_exit([candidate], np.ones(100), whole_ms=4.0, tolerance=0.0) is None


def test_luck_on_some_examples_does_not_pay_for_losses_on_others():
    whole = np.r_[np.zeros(5), np.ones(5)]
    candidate = Candidate(block="b", entropy_N=np.arange(10.0), score_N=1 - whole, early_ms=1.0, late_ms=4.0)
    choice = choose_exit([candidate], whole, whole_ms=4.0, tolerance=0.1)
    assert choice is not None
    assert (choice.share, choice.quality) == (pytest.approx(0.6), pytest.approx(0.9))
