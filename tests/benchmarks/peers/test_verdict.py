"""Our front against a peer: hand-made rights and times."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers.contestant import Contestant, Side
from benchmarks.peers.measure import Measured
from benchmarks.peers.verdict import Standing, best_of, judge, paired_gain

_EXAMPLES = 400


def measured(name: str, *, wrong: range, ms: float, side: Side = Side.OURS) -> Measured:
    """A model that answers all but some examples; the second round is twice as slow for everybody."""
    right = np.ones(_EXAMPLES, np.bool_)
    right[list(wrong)] = False
    contestant = Contestant(name=name, side=side, path=Path(name), made_in_s=0.0)
    return Measured(contestant=contestant, right=right, unseen=_EXAMPLES // 2, round_ms=np.array([ms, 2 * ms, ms]))


def peer(*, wrong: range, ms: float, name: str = "peer") -> Measured:
    return measured(name, wrong=wrong, ms=ms, side=Side.PEER)


def test_a_faster_and_more_accurate_member_dominates():
    verdict = judge(peer(wrong=range(40), ms=4.0), [measured("a", wrong=range(39), ms=3.0)])
    assert verdict.standing is Standing.DOMINATED
    assert verdict.by == "a"
    assert verdict.latency_over_peer == pytest.approx(0.75)
    assert verdict.accuracy_gain == pytest.approx(1 / _EXAMPLES)


def test_a_copy_of_the_peer_levels_and_does_not_dominate():
    verdict = judge(peer(wrong=range(40), ms=4.0), [measured("a", wrong=range(40), ms=4.0)])
    assert verdict.standing is Standing.LEVEL


def test_a_member_that_is_hardly_less_accurate_levels_where_it_is_no_slower():
    ours = [measured("a", wrong=range(2, 44), ms=3.9)]
    assert judge(peer(wrong=range(40), ms=4.0), ours).standing is Standing.LEVEL


def test_a_member_that_is_surely_less_accurate_leaves_the_peer_open():
    verdict = judge(peer(wrong=range(40), ms=4.0), [measured("a", wrong=range(80), ms=1.0)])
    assert verdict.standing is Standing.OPEN
    assert verdict.by is None


def test_a_slower_member_leaves_the_peer_open_however_accurate():
    ours = [measured("a", wrong=range(0), ms=4.1)]
    assert judge(peer(wrong=range(40), ms=4.0), ours).standing is Standing.OPEN


def test_domination_by_a_slower_member_goes_before_levelling_by_a_faster_one():
    ours = [measured("quick", wrong=range(2, 44), ms=2.0), measured("good", wrong=range(40), ms=3.0)]
    verdict = judge(peer(wrong=range(40), ms=4.0), ours)
    assert (verdict.standing, verdict.by) == (Standing.DOMINATED, "good")


def test_the_speedup_makes_no_allowance_for_accuracy():
    ours = [measured("quick", wrong=range(41), ms=1.0), measured("good", wrong=range(40), ms=2.0)]
    assert judge(peer(wrong=range(40), ms=4.0), ours).speedup_at_its_accuracy == pytest.approx(2.0)
    assert judge(peer(wrong=range(39), ms=4.0), ours).speedup_at_its_accuracy is None


def test_only_the_examples_that_no_search_saw_can_be_asked_for():
    better_on_seen = measured("a", wrong=range(200, 260), ms=3.0)
    against = peer(wrong=range(100), ms=4.0)
    assert judge(against, [better_on_seen]).standing is Standing.DOMINATED
    assert judge(against, [better_on_seen], unseen_only=True).standing is Standing.OPEN


def test_the_best_peer_is_the_most_accurate_and_then_the_fastest():
    peers = [peer(wrong=range(n), ms=ms, name=f"{n} at {ms}") for n, ms in ((5, 1.0), (4, 9.0), (4, 7.0))]
    assert best_of(peers).contestant.name == "4 at 7.0"


def test_the_interval_of_a_paired_gain_is_about_as_wide_as_the_normal_one():
    ours, theirs = measured("a", wrong=range(20), ms=1.0).right, measured("b", wrong=range(10, 60), ms=1.0).right
    gain, (low, high) = paired_gain(ours, theirs)
    differences = ours.astype(float) - theirs.astype(float)
    half = 1.96 * differences.std() / np.sqrt(_EXAMPLES)
    assert gain == pytest.approx(30 / _EXAMPLES)
    assert (low, high) == pytest.approx((gain - half, gain + half), abs=0.01)
