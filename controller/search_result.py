"""The result of a search as it is handed over: its front, what stands beside it, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controller.front import (
    FrontMember,
    cost_bounds,
    feasible,
    hypervolume,
    least_violating,
)
from controller.job import JobSpec, Objective
from controller.outcome import failure_groups
from controller.rechecking.recheck import HeldOut
from controller.results import FrontRow, SearchResult
from controller.retargeting.target_change import describe_target
from controller.storage.engine import open_existing
from controller.storage.records import TrialRole
from controller.storage.repository import Repository
from controller.study_summary import StudySummary, energy_basis, summarise
from evaluators.latency.table import EnergyBasis


def load_front(name: str, storage: str, *, pick: str | None = None) -> SearchResult:
    """Read the front of a study again.

    Args:
        name: Name of the study.
        storage: URL of its database.
        pick: Rule that picks a member, in words; None picks none.

    Raises:
        UsageError: No study of that name, or nothing that the rule asks for.
    """
    summary = summarise(Repository(open_existing(storage)), name)
    result = result_of(summary)
    return result if pick is None else replace(result, picked=summary.pick(pick))


def result_of(
    summary: StudySummary,
    *,
    mlflow_address: str | None = None,
    interrupted: bool = False,
    notes: tuple[str, ...] = (),
) -> SearchResult:
    """Summarise a study for people and for --json."""
    dense, front = summary.dense, summary.front
    volume = None
    if dense is not None:
        volume = hypervolume(front, summary.job.objectives, dense=dense, chance_quality=summary.chance_quality)
    nearest: Sequence[FrontMember] = ()
    if dense is not None and not front:
        nearest = least_violating(summary.members, summary.job.constraints, dense.quality)
    return SearchResult(
        study=summary.record.name,
        metric=summary.metric,
        task_metric=summary.task_metric,
        front=tuple(_row(summary, member) for member in front),
        baselines=() if dense is None else tuple(_row(summary, m) for m in summary.baselines),
        least_violating=tuple(_row(summary, member) for member in nearest),
        trials_done=summary.counts.trials,
        counts=summary.counts,
        hypervolume=volume,
        reference=summary.reference,
        holdout_check=summary.holdout_check,
        failures=failure_groups(summary.trials),
        mlflow_address=mlflow_address,
        foreign_table=bool(summary.foreign),
        measured_on=summary.measured_on,
        extrapolated=summary.extrapolated,
        latency_margin_pct=summary.latency_margin_pct,
        latency_sentence=summary.latency_sentence,
        interrupted=interrupted,
        target=describe_target(summary.job.target),
        origin=None if summary.origin is None else summary.origin.study,
        energy_heading=_energy_heading(summary) if Objective.ENERGY_MJ in costs_named(summary.job) else None,
        names_memory=Objective.PEAK_MEMORY_BYTES in costs_named(summary.job),
        notes=(*notes, *_unscored_baselines(summary)),
    )


def _unscored_baselines(summary: StudySummary) -> tuple[str, ...]:
    """Which uniform policies do not stand beside the front, as their scores are from calls of another size."""
    scored = {member.policy_digest for member in summary.baselines}
    estimated = [
        trial.name
        for trial in summary.trials
        if trial.role is TrialRole.BASELINE and trial.stopped_early and trial.policy.digest not in scored
    ]
    if not estimated or summary.origin is None:
        return ()
    return (
        f"{len(estimated)} uniform policies are not shown beside the front, as their scores are estimates, from calls "
        f"of another size in {summary.origin.study}; what could be on it is scored first: {'; '.join(estimated)}",
    )


def _energy_heading(summary: StudySummary) -> str:
    return "energy (estimated)" if energy_basis(summary) is EnergyBasis.ESTIMATED else "energy"


def costs_named(job: JobSpec) -> tuple[Objective, ...]:
    """Return the costs that a job has among its objectives or bounds."""
    bounded = cost_bounds(job.constraints)
    return tuple(o for o in Objective if o is not Objective.QUALITY and (o in job.objectives or o in bounded))


def _row(summary: StudySummary, member: FrontMember) -> FrontRow:
    dense = summary.dense
    assert dense is not None
    held = summary.held.get(member.policy_digest)
    return FrontRow(
        trial=member.number,
        name=member.name,
        policy_digest=member.policy_digest,
        quality=member.quality,
        holdout_quality=None if held is None else held.holdout_quality,
        holdout_low=None if held is None else held.low,
        holdout_high=None if held is None else held.high,
        holdout_metric=summary.holdout_metric(member.policy_digest),
        search_gap=None if held is None else held.gap,
        level_with=() if held is None else _level_with(summary, held),
        latency_ms=member.latency_ms,
        size_bytes=member.size_bytes,
        latency_ratio=member.latency_ms / dense.latency_ms,
        energy_mj=member.energy_mj,
        peak_memory_bytes=member.peak_memory_bytes,
        feasible=bool(feasible([member], summary.job.constraints, dense.quality)),
        knee=member is summary.knee,
        taken_over=summary.took_over(member.number),
    )


def _level_with(summary: StudySummary, held: HeldOut) -> tuple[int, ...]:
    """Numbers of the front members that the holdout can't tell from a policy."""
    rivals = ((member.number, summary.held.get(member.policy_digest)) for member in summary.front)
    return tuple(n for n, rival in rivals if rival is not None and rival is not held and rival.overlaps(held))
