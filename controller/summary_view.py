"""A study as plots, report files and MLflow show it: every trial a point."""

from __future__ import annotations

import json
from collections.abc import Mapping

from controller.errors import UsageError
from controller.front import (
    FrontMember,
    feasible,
    hypervolume,
    pareto_front,
)
from controller.progress import front_member
from controller.storage.records import TrialRecord, TrialRole, TrialState
from controller.study_summary import StudySummary, energy_basis, interval_of
from controller.study_view import Bounds, PointRole, PointState, PointView, StudyView, UnitView
from search_spaces.formats import FORMATS

_STATES = {
    TrialState.COMPLETE: PointState.COMPLETE,
    TrialState.PRUNED: PointState.PRUNED,
    TrialState.FAIL: PointState.FAILED,
    TrialState.RUNNING: PointState.RUNNING,
    TrialState.WAITING: PointState.RUNNING,
}


def view_of(summary: StudySummary) -> StudyView:
    """Make the view that plots, report files and MLflow show.

    Raises:
        UsageError: The dense model has no score yet.
    """
    dense = summary.dense
    if dense is None:
        raise UsageError(f"study {summary.record.name!r} has no scored dense model yet; run its search first")
    on_front = {member.policy_digest for member in summary.front}
    groups = {name: unit["groups"] for name, unit in json.loads(summary.record.fixed_json)["space"]["units"].items()}
    drop = summary.job.constraints.max_quality_drop
    return StudyView(
        study=summary.record.name,
        title=summary.record.name
        + (" (latencies of a table from other hardware)" if summary.foreign else "")
        + (" (latencies beyond what was measured)" if summary.extrapolated else ""),
        metric=summary.metric,
        task_metric=summary.task_metric,
        objectives=tuple(str(objective) for objective in summary.job.objectives),
        dense_quality=dense.quality,
        dense_latency_ms=dense.latency_ms,
        dense_size_bytes=dense.size_bytes,
        bounds=Bounds(
            min_quality=None if drop is None else dense.quality - drop,
            max_latency_ms=summary.job.constraints.max_latency_ms,
            max_size_bytes=summary.job.constraints.max_size_bytes,
            max_energy_mj=summary.job.constraints.max_energy_mj,
            max_peak_memory_bytes=summary.job.constraints.max_peak_memory_bytes,
        ),
        energy_basis=energy_basis(summary),
        points=tuple(_point(summary, t, on_front, groups) for t in summary.trials if t.role is not TrialRole.PROBE),
        hypervolume_by_trial=hypervolume_by_trial(summary, dense),
        reference=summary.reference,
        holdout_check=summary.holdout_check,
        latency_margin_pct=summary.latency_margin_pct,
        latency_sentence=summary.latency_sentence,
    )


def hypervolume_by_trial(summary: StudySummary, dense: FrontMember) -> tuple[float, ...]:
    """Hypervolume after each finished trial but probes, in order of their numbers."""
    found: list[float] = []
    front: list[FrontMember] = []
    bounds, objectives = summary.job.constraints, summary.job.objectives
    for trial in summary.trials:
        if not trial.state.is_finished or trial.role is TrialRole.PROBE:
            continue
        member = front_member(trial)
        if member is not None and feasible([member], bounds, dense.quality):
            front = pareto_front([*front, member], objectives)
        found.append(hypervolume(front, objectives, dense=dense, chance_quality=summary.chance_quality))
    return tuple(found)


def _point(summary: StudySummary, trial: TrialRecord, on_front: set[str], groups: Mapping[str, int]) -> PointView:
    dense = summary.dense
    assert dense is not None
    member = front_member(trial)
    scored = summary.search.get(trial.policy.digest)
    held = summary.held.get(trial.policy.digest)
    shown = trial.policy.digest in on_front or trial.role is TrialRole.BASELINE
    low, high = interval_of(summary, scored) if scored is not None and shown else (None, None)
    cut = trial.state is TrialState.PRUNED and not trial.stopped_early
    return PointView(
        trial=trial.number,
        name=trial.name,
        role=PointRole.BASELINE if trial.role is TrialRole.BASELINE else PointRole.TRIAL,
        state=_STATES[trial.state],
        policy={
            name: UnitView(
                keep=trial.policy[name].keep,
                groups=count,
                format=trial.policy[name].format,
                weight_bits=FORMATS.get(trial.policy[name].format).weight_bits,
            )
            for name, count in groups.items()
        },
        quality=trial.quality,
        share=trial.share,
        quality_low=low,
        quality_high=high,
        latency_ms=trial.costs.latency_ms,
        size_bytes=trial.costs.size_bytes,
        energy_mj=trial.costs.energy_mj,
        peak_memory_bytes=trial.costs.peak_memory_bytes,
        kl_to_dense=trial.kl_to_dense,
        feasible=not cut and (member is None or bool(feasible([member], summary.job.constraints, dense.quality))),
        on_front=member is not None and trial.policy.digest in on_front,
        holdout_quality=None if held is None else held.holdout_quality,
        holdout_low=None if held is None else held.low,
        holdout_high=None if held is None else held.high,
        holdout_metric=summary.holdout_metric(trial.policy.digest),
        knee=summary.knee is not None and summary.knee.number == trial.number,
        failure=trial.message if trial.state is TrialState.FAIL else None,
    )
