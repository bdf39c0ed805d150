"""Whether a model that is in use still meets its constraint, from scores on new data.

The loss is measured against the dense model on the same examples, where that can be read: new data that are harder for
both are no fault of the compression. Else the dense model's recorded quality takes its place, as if it were exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.job import RecheckConfig
from controller.rechecking.report import Verdict
from evaluators.confidence import bootstrap_interval

FEWEST_EXAMPLES = 30
"""With fewer a percentile bootstrap is narrower than what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a model loses against the dense one.

    Attributes:
        drop: The loss.
        paired: Whether both were scored on the same examples.
    """

    drop: Interval
    paired: bool


def interval_of(values: Sequence[float], config: RecheckConfig) -> Interval:
    """Mean of some examples with its bootstrap interval, at the confidence that the job asks for."""
    low, high = bootstrap_interval(values, confidence=config.confidence, resamples=config.resamples)
    return Interval(mean=sum(values) / len(values), low=low, high=high)


def loss_of(
    model: Sequence[float],
    dense: Sequence[float] | None,
    recorded_dense: float | None,
    config: RecheckConfig,
) -> Loss | None:
    """Measure what a model loses.

    Args:
        model: Its quality on each example; empty where it could not be measured.
        dense: The dense model's on the same examples; None where it is out of reach.
        recorded_dense: Quality of the dense model as it was recorded; None where nothing comparable was.
        config: Confidence level of the interval, and the resamples behind it.

    Returns:
        None where there is nothing to compare with.
    """
    if not model:
        return None
    if dense is not None:
        differences = [whole - part for whole, part in zip(dense, model, strict=True)]
        return Loss(drop=interval_of(differences, config), paired=True)
    if recorded_dense is None:
        return None
    drops = [recorded_dense - part for part in model]
    return Loss(drop=interval_of(drops, config), paired=False)


def judge(loss: Loss | None, *, max_quality_drop: float, examples: int) -> Verdict:
    """Tell whether a loss is within the constraint.

    Args:
        loss: What the model loses; None where it could not be measured.
        max_quality_drop: Largest loss that is allowed.
        examples: Examples behind it.
    """
    if loss is None or examples < FEWEST_EXAMPLES:
        return Verdict.CANNOT_TELL
    if loss.drop.mean <= max_quality_drop:
        return Verdict.FINE
    return Verdict.BELOW if loss.drop.low > max_quality_drop else Verdict.CANNOT_TELL
