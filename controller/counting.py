"""Counts the trials of a study by what became of them."""

from collections.abc import Iterable

from controller.progress import counted_share
from controller.storage.records import TrialRecord, TrialRole, TrialState
from controller.trial_counts import TrialCounts

_TOLERANCE = 1e-6


def count_trials(trials: Iterable[TrialRecord], examples: int | None) -> TrialCounts:
    """Count the finished trials of a study.

    Args:
        trials: Trials; those that wait or run are left out.
        examples: Examples of the search split; None where that is not known, and taken for a large one.
    """
    finished = [trial for trial in trials if trial.state.is_finished]
    kinds = [_kind(trial) for trial in finished]
    return TrialCounts(
        **{kind: kinds.count(kind) for kind in set(kinds)},
        evaluations=evaluations_of(finished, examples),
    )


def evaluations_of(trials: Iterable[TrialRecord], examples: int | None) -> int:
    """Return how much trials count towards the number that a job asks for, without the last part of one."""
    return int(sum(counted_share(trial, examples) for trial in trials) + _TOLERANCE)


def _kind(trial: TrialRecord) -> str:
    if trial.role is not TrialRole.TRIAL:
        return "probes" if trial.role is TrialRole.PROBE else "baselines"
    if trial.repeat_of is not None:
        return "repeats"
    if trial.stopped_early:
        return "stopped_early" if trial.share < 1 else "estimated"
    kinds = {TrialState.COMPLETE: "scored", TrialState.PRUNED: "not_scored"}
    return kinds.get(trial.state, "failed")
