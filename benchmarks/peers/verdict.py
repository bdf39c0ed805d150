"""Who is better: the rules by which a front of ours is set against a peer's model.

A member of the front answers a peer where it is no slower (the median of the rounds' ratios is at most 1) and no less
accurate, and one of both is better: it *dominates*. It *levels* the peer where it is no slower and the paired
difference of accuracies, member less peer, has a 95 % bootstrap interval that includes 0. Else the peer is *open*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from benchmarks.peers.measure import Measured
from evaluators.confidence import bootstrap_interval


class Standing(StrEnum):
    """How a peer stands to our front."""

    DOMINATED = "dominated"
    LEVEL = "level"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A peer against our front.

    Attributes:
        standing: How it stands.
        by: Name of the member that says so, the fastest of them; None where the peer is open.
        latency_over_peer: Latency of that member as a multiple of the peer's.
        accuracy_gain: Accuracy of that member less the peer's.
        interval: 95 % interval of that gain.
        speedup_at_its_accuracy: Latency of the peer as a multiple of that of our fastest member with at least its
            accuracy, no allowance made; None where no member has it.
    """

    standing: Standing
    by: str | None
    latency_over_peer: float | None
    accuracy_gain: float | None
    interval: tuple[float, float] | None
    speedup_at_its_accuracy: float | None


def judge(peer: Measured, ours: Sequence[Measured], *, unseen_only: bool = False) -> Verdict:
    """Set a peer against the members of a front.

    Args:
        peer: The peer's model.
        ours: Our members.
        unseen_only: Whether only examples count that no search saw.
    """
    kept = slice(-peer.unseen, None) if unseen_only else slice(None)
    speedup = speedup_at_accuracy(peer, ours, kept)
    for wanted in (Standing.DOMINATED, Standing.LEVEL):
        for member in sorted(ours, key=lambda each: each.latency_ms):
            if _standing(peer, member, kept) is wanted:
                gain, interval = paired_gain(member.right[kept], peer.right[kept])
                return Verdict(
                    standing=wanted,
                    by=member.contestant.name,
                    latency_over_peer=member.latency_over(peer),
                    accuracy_gain=gain,
                    interval=interval,
                    speedup_at_its_accuracy=speedup,
                )
    return Verdict(
        standing=Standing.OPEN,
        by=None,
        latency_over_peer=None,
        accuracy_gain=None,
        interval=None,
        speedup_at_its_accuracy=speedup,
    )


def best_of(peers: Sequence[Measured]) -> Measured:
    """The peer of highest accuracy on all of dev; of several, the fastest."""
    return max(peers, key=lambda each: (each.right.sum(), -each.latency_ms))


def speedup_at_accuracy(peer: Measured, ours: Sequence[Measured], kept: slice = slice(None)) -> float | None:
    """Latency of a peer over that of our fastest member that is at least as accurate; None where none is."""
    reaching = [member for member in ours if member.right[kept].sum() >= peer.right[kept].sum()]
    return max((peer.latency_over(member) for member in reaching), default=None)


def paired_gain(ours_N: npt.NDArray[np.bool_], theirs_N: npt.NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Accuracy of ours less theirs on the same examples, with its 95 % bootstrap interval."""
    differences = ours_N.astype(np.float64) - theirs_N.astype(np.float64)
    return float(differences.mean()), bootstrap_interval(differences.tolist())


def _standing(peer: Measured, member: Measured, kept: slice) -> Standing:
    over = member.latency_over(peer)
    if over > 1:
        return Standing.OPEN
    gain, (low, high) = paired_gain(member.right[kept], peer.right[kept])
    if gain >= 0 and (gain > 0 or over < 1):
        return Standing.DOMINATED
    return Standing.LEVEL if low <= 0 <= high else Standing.OPEN
