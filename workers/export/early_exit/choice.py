"""Where to leave, and how sure an example must be: the cheapest exit whose quality stays within a tolerance.

Shape letters: N examples, K exits of one block: the k-th lets the k + 1 surest examples leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_GAIN = 0.02
"""Share of the latency that an exit must save: less is within what the branch itself costs a runtime."""
_ROUNDING = 1e-9
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A block that examples could leave after.

    Attributes:
        block: Module name.
        entropy_N: Entropy of its head's classes on each example, in nats.
        score_N: Metric of its head on each example.
        early_ms: Latency of an example that leaves.
        late_ms: Latency of one that asks the head and goes on.
    """

    block: str
    entropy_N: Floats
    score_N: Floats
    early_ms: float
    late_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A block and a threshold.

    Attributes:
        candidate: The block.
        threshold_nats: Examples leave at this entropy or below: halfway between the last that leaves and the first that
            stays.
        share: Share of examples that leaves.
        quality: Mean metric with the exit.
        expected_ms: Mean latency.
    """

    candidate: Candidate
    threshold_nats: float
    share: float
    quality: float
    expected_ms: float


def choose_exit(
    candidates: Sequence[Candidate], whole_score_N: Floats, *, whole_ms: float, tolerance: float
) -> Choice | None:
    """Choose the exit with the least expected latency; among equals the better one, then the earlier block.

    Args:
        candidates: Blocks on offer, in the model's order.
        whole_score_N: Metric of the whole model on each example.
        whole_ms: Latency of the model without an exit.
        tolerance: Loss of the mean metric that is allowed, 0 to 1; examples that gain do not make up for others.

    Returns:
        None where no exit within the tolerance saves `LEAST_GAIN` of the latency.
    """
    found = [choice for candidate in candidates for choice in _best_of(candidate, whole_score_N, tolerance)]
    best = min(found, key=lambda choice: (choice.expected_ms, -choice.quality), default=None)
    return None if best is None or best.expected_ms > (1 - LEAST_GAIN) * whole_ms else best


def _best_of(candidate: Candidate, whole_score_N: Floats, tolerance: float) -> Sequence[Choice]:
    """The exit of one block that the most examples leave by, if there is one."""
    order_N = candidate.entropy_N.argsort(kind="stable")
    entropy_N, count = candidate.entropy_N[order_N], len(order_N)
    change_N = (candidate.score_N - whole_score_N)[order_N]
    quality_K = whole_score_N.mean() + change_N.cumsum() / count
    # What a head answers better than the whole model is luck of these examples, and makes up for nothing.
    lost_K = -change_N.clip(max=0).cumsum() / count
    # Equal entropies leave together.
    is_last_K = np.append(entropy_N[1:] > entropy_N[:-1], True)
    allowed = np.flatnonzero(is_last_K & (lost_K <= tolerance + _ROUNDING))
    if not len(allowed):
        return ()
    place = int(allowed[-1])
    share = (place + 1) / count
    return (
        Choice(
            candidate=candidate,
            threshold_nats=float(entropy_N[place : place + 2].mean()),
            share=share,
            quality=float(quality_K[place]),
            expected_ms=share * candidate.early_ms + (1 - share) * candidate.late_ms,
        ),
    )
