"""What a result means for a trial: its objectives, broken constraints, and whether it can be trusted."""

import math
from collections import Counter
from collections.abc import Sequence

from controller.front import cost_value, cost_violations
from controller.job import Objective
from controller.results import FailureGroup
from controller.storage.records import TrialRecord, TrialState
from controller.study_config import DenseModelError, StudyConfig, TooManyFailuresError, too_many_failures
from evaluators.scores import Costs, ScoreError
from workers.protocol import FailureReason, TrialFailure, TrialReport

_COST_TOLERANCE = 1e-6
_FAILURES_TO_STOP = 10


class FailureTally:
    """Counts the failures of one run, and says when there are too many to go on."""

    def __init__(self) -> None:
        self._failures: list[tuple[str, str]] = []
        self._told = 0

    def scored(self) -> None:
        """Note a trial that got its scores."""
        self._told += 1

    def failed(self, failure: TrialFailure) -> TooManyFailuresError | None:
        """Note a trial that failed; return the error that ends the search once most trials fail."""
        self._told += 1
        self._failures.append((failure.reason, failure.message))
        if len(self._failures) >= _FAILURES_TO_STOP and 2 * len(self._failures) > self._told:
            return too_many_failures(self._failures, self._told)
        return None


def objective_values(trial: TrialRecord, config: StudyConfig) -> list[float]:
    """Return the objectives of a finished trial, for the sampler.

    A trial whose costs alone break a constraint has no quality. Among infeasible trials samplers go by how far
    constraints are broken and never by objectives, so the quality of chance stands in for it.
    """
    quality = config.chance_quality if trial.quality is None else trial.quality
    return [quality if o is Objective.QUALITY else cost_value(trial.costs, o) for o in config.objectives]


def broken_constraints(trial: TrialRecord, config: StudyConfig, dense_quality: float | None) -> dict[str, float]:
    """Return how far each declared constraint is broken, as far as it is known; 0 or less where it is met."""
    found = cost_violations(trial.costs, config.constraints)
    drop = config.constraints.max_quality_drop
    if drop is not None and trial.quality is not None and dense_quality is not None:
        found["max_quality_drop"] = dense_quality - trial.quality - drop
    return found


def check_report(report: TrialReport, expected: Costs) -> TrialReport | TrialFailure:
    """Return the report, or a failure where its scores are not finite or its costs not the controller's."""
    try:
        report.scores.check_finite()
    except ScoreError as error:
        return _failure(report, FailureReason.NON_FINITE_SCORE, str(error))
    got = report.scores.costs
    same_latency = math.isclose(got.latency_ms, expected.latency_ms, rel_tol=_COST_TOLERANCE)
    if same_latency and got.size_bytes == expected.size_bytes:
        return report
    return _failure(
        report,
        FailureReason.ERROR,
        f"worker and controller must read the same latency table; the worker has {got}, the controller {expected}; "
        "give every node the same table",
    )


def check_dense(dense: TrialRecord, config: StudyConfig) -> None:
    """Refuse a dense model that leaves nothing to search for.

    Raises:
        DenseModelError: It has failed, or it is no better than chance.
    """
    if dense.quality is None:
        raise DenseModelError(f"the dense model must have a score; it failed ({dense.reason}): {dense.message}")
    assert dense.metric is not None
    check_better_than_chance(dense.metric, dense.quality, config.chance_quality)


def check_better_than_chance(metric: str, value: float, chance: float) -> None:
    """Refuse a dense model that does not look at its examples, or has no idea of their labels.

    Args:
        metric: Name of the metric.
        value: Metric of the dense model on the search examples.
        chance: What the best constant answer reaches there.

    Raises:
        DenseModelError: It is no better than that.
    """
    if value <= chance:
        raise DenseModelError(
            f"the dense model must be better than chance ({chance:g}); got {metric} {value:g} on the search examples; "
            "check the labels and that the model was trained for them"
        )


def failure_groups(trials: Sequence[TrialRecord]) -> tuple[FailureGroup, ...]:
    """Group failed trials by reason, the most frequent first, each with the message of its first one."""
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    counts = Counter(str(trial.reason) for trial in failed)
    examples = {str(trial.reason): trial.message or "" for trial in reversed(failed)}
    return tuple(
        FailureGroup(reason=reason, count=count, example=examples[reason]) for reason, count in counts.most_common()
    )


def _failure(report: TrialReport, reason: FailureReason, message: str) -> TrialFailure:
    return TrialFailure(trial=report.trial, attempt=report.attempt, reason=reason, message=message)
