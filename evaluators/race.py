"""Racing: a pass over a split that stops once the policy can't pass a bar any more.

Two things stop it. On the first rung, a random sample of the split, a test against a reference: it lets pass at least
all but a stated share of the policies that would have passed in the end. After it, plain counting: a policy that is
short of right answers even if it had all that are left can't pass, whatever the order of the examples. So they are
taken in the order of their difficulty for the dense model: where it nearly errs compressed models do err, and most of
what can't pass is known to after a small part of the split.

Scores that are not right or wrong (bits per token, fidelity) have no bound to count with. There each rung is tested in
turn, with the error divided among them, and the test is an approximate one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.bar import Bar
from evaluators.confidence import mean_p_value, reach_p_value
from evaluators.quality import Forward, Pass, QualityEvaluator
from evaluators.rungs import rung_order, rung_sizes
from evaluators.scores import Quality, QualityMeasure

_NEIGHBOURS = 24
"""From so many examples of about the same difficulty a missing one is estimated."""


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Where a policy stands that was stopped: its quality on the whole split, below the bar, and its divergence."""

    quality: float
    kl_to_dense: float


def race(evaluator: QualityEvaluator, forward: Forward, bar: Bar) -> Quality:
    """Score a model on the split, or on as much of it as it takes to know that it does not pass the bar.

    Returns:
        The score on the whole split, the same as without a bar; or an estimate of it that lies below the bar, with the
        share of the examples that it took.

    Raises:
        ValueError: The bar belongs to another split.
    """
    if len(bar.reference) != evaluator.examples:
        raise ValueError(
            f"a bar holds a score for each of the {evaluator.examples} examples of the split; got {len(bar.reference)}"
        )
    one_pass = evaluator.start(forward)
    is_metric = evaluator.measure is QualityMeasure.METRIC
    compete = _by_counting if is_metric and evaluator.task.right_or_wrong else _by_rungs
    estimate = compete(evaluator, one_pass, bar)
    if estimate is None:
        return evaluator.score(one_pass.outputs(evaluator.rungs - 1))
    return Quality(
        metric=evaluator.measure.name_with(evaluator.task.metric),
        value=estimate.quality,
        per_example=(),
        kl_to_dense=estimate.kl_to_dense,
        seconds=one_pass.seconds,
        share=int(one_pass.is_done_N.sum()) / evaluator.examples,
    )


def _by_counting(evaluator: QualityEvaluator, one_pass: Pass, bar: Bar) -> _Estimate | None:
    """Go on while enough right answers are possible; return an estimate if it ended early."""
    one_pass.reach(0)
    reference_N = np.asarray(bar.reference) > 0.5
    tested = False
    while not one_pass.finished:
        right_N, seen_N = one_pass.per_example_N.numpy(), one_pass.is_done_N.numpy()
        # A model that gives NaN runs to the end, where it fails as such.
        if np.isfinite(right_N[seen_N]).all():
            possible = int((right_N[seen_N] > 0.5).sum() + (~seen_N).sum())
            unlikely = not tested and reach_p_value(reference_N, right_N > 0.5, seen_N, bar.needed) <= bar.error
            if possible < bar.needed or unlikely:
                return _estimate(evaluator, one_pass, bar)
        tested = True
        one_pass.step()
    return None


def _estimate(evaluator: QualityEvaluator, one_pass: Pass, bar: Bar) -> _Estimate:
    """Estimate where a policy stands on the whole split: its quality by how far it is behind the reference."""
    examples = evaluator.examples
    difficulty_N = np.zeros(examples) if evaluator.difficulty is None else np.asarray(evaluator.difficulty)
    behind_N = np.asarray(bar.reference) - one_pass.per_example_N.numpy().astype(np.float64)
    quality = float(np.mean(bar.reference)) - mean_of_alike(behind_N, difficulty_N)
    return _Estimate(
        quality=max(0.0, min(quality, (bar.needed - 1) / examples)),
        kl_to_dense=mean_of_alike(evaluator.divergence_by_example(one_pass).numpy(), difficulty_N),
    )


def mean_of_alike(values_N: NDArray[np.float64], difficulty_N: NDArray[np.float64]) -> float:
    """Estimate the mean over a split of which the difficult examples were seen, and some at random.

    What was seen does not depend on the candidate, so an example that is left is taken to be like the nearest ones that
    were seen, by difficulty.

    Args:
        values_N: Of each example; NaN where it was not seen.
        difficulty_N: Of each example.
    """
    seen_N = np.isfinite(values_N)
    rank_N = np.empty(len(seen_N), dtype=int)
    rank_N[np.argsort(difficulty_N, kind="stable")] = np.arange(len(seen_N))
    rows = np.flatnonzero(seen_N)
    rows = rows[np.argsort(rank_N[rows])]
    around = min(_NEIGHBOURS, len(rows))
    start = np.clip(np.searchsorted(rank_N[rows], rank_N[~seen_N]) - around // 2, 0, len(rows) - around)
    sums = np.concatenate([[0.0], np.cumsum(values_N[rows])])
    missing = ((sums[start + around] - sums[start]) / around).sum()
    return float(sums[-1] + missing) / len(seen_N)


def _by_rungs(evaluator: QualityEvaluator, one_pass: Pass, bar: Bar) -> _Estimate | None:
    """Test after each rung; return an estimate if a test has failed."""
    reference_N = np.asarray(bar.reference)
    bound = float(reference_N.mean()) - bar.threshold
    for rung in range(evaluator.rungs - 1):
        one_pass.reach(rung)
        rows = list(rung_order(evaluator.examples)[: rung_sizes(evaluator.examples)[rung]])
        behind = reference_N[rows] - evaluator.quality_by_example(one_pass).numpy()[rows].astype(np.float64)
        if not np.isfinite(behind).all():
            break
        if mean_p_value(behind, evaluator.examples, bound) <= bar.error / (evaluator.rungs - 1):
            quality = min(float(reference_N.mean() - behind.mean()), bar.threshold)
            return _Estimate(quality, evaluator.score(one_pass.outputs(rung)).kl_to_dense)
    one_pass.reach(evaluator.rungs - 1)
    return None
