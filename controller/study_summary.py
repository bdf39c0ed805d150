"""A study read back from the database, as results for people and as the view that plots are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from controller.errors import UsageError
from controller.front import (
    FrontMember,
    cost_bounds,
    feasible,
    hypervolume,
    knee,
    least_violating,
    pareto_front,
    reference_point,
)
from controller.job import JobSpec, Objective
from controller.outcome import failure_groups
from controller.pick import pick as pick_member
from controller.progress import front_member
from controller.rechecking.recheck import HeldOut, check_front
from controller.results import FrontRow, HoldoutCheck, MetricCheck, PickSummary, SearchResult
from controller.retargeting.target_change import describe_target
from controller.storage.engine import open_database
from controller.storage.records import StudyRecord, TrialRecord, TrialRole, TrialState
from controller.storage.repository import Repository
from controller.study_config import Origin
from controller.study_view import Bounds, PointRole, PointState, PointView, StudyView, UnitView
from evaluators.confidence import bootstrap_interval
from evaluators.latency.table import EnergyBasis
from evaluators.scores import Quality, QualityMeasure
from search_spaces.formats import FORMATS
from workers.protocol import Split

_STATES = {
    TrialState.COMPLETE: PointState.COMPLETE,
    TrialState.PRUNED: PointState.PRUNED,
    TrialState.FAIL: PointState.FAILED,
    TrialState.RUNNING: PointState.RUNNING,
    TrialState.WAITING: PointState.RUNNING,
}


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A study and its scores.

    Attributes:
        record: The study.
        job: The job; passwords in its URLs are masked.
        trials: All trials.
        search: Scores on the search split by policy digest.
        holdout: Scores on the holdout by policy digest, as far as they exist.
        holdout_by_metric: Scores on the holdout by the task's metric; the same ones where that is what quality is.
        chance_quality: Quality of guessing.
        foreign: How the latency table's hardware differs from the machine that searched.
        extrapolated: How many operators of the space lie outside what the table was measured for.
    """

    record: StudyRecord
    job: JobSpec
    trials: Sequence[TrialRecord]
    search: Mapping[str, Quality]
    holdout: Mapping[str, Quality]
    holdout_by_metric: Mapping[str, Quality]
    chance_quality: float
    foreign: tuple[str, ...]
    extrapolated: int

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """What can't change once the study has trials."""
        content: dict[str, Any] = json.loads(self.record.fixed_json)
        return content

    @cached_property
    def members(self) -> list[FrontMember]:
        """Every scored policy."""
        return [member for trial in self.trials if (member := front_member(trial)) is not None]

    @cached_property
    def dense(self) -> FrontMember | None:
        """The dense model; None before it is scored, or where it is no better than chance."""
        found = next((member for member in self.members if member.number == 0), None)
        return found if found is not None and found.quality > self.chance_quality else None

    @cached_property
    def front(self) -> list[FrontMember]:
        """Feasible members that none dominates, by falling latency."""
        dense = self.dense
        if dense is None:
            return []
        return pareto_front(feasible(self.members, self.job.constraints, dense.quality), self.job.objectives)

    @cached_property
    def knee(self) -> FrontMember | None:
        """The member at which the front bends most; None without a front."""
        return knee(self.front, self.job.objectives) if self.front else None

    @cached_property
    def reference(self) -> dict[str, float]:
        """The point that the hypervolume is measured from, by objective; empty before the dense model is scored."""
        if self.dense is None:
            return {}
        point = reference_point(self.job.objectives, dense=self.dense, chance_quality=self.chance_quality)
        return {str(objective): value for objective, value in point.items()}

    @cached_property
    def held(self) -> dict[str, HeldOut]:
        """Policies that were scored on the holdout too, by policy digest."""
        return {
            member.policy_digest: _held_out(self, member, score)
            for member in self.members
            if (score := self.holdout.get(member.policy_digest)) is not None
        }

    @cached_property
    def holdout_check(self) -> HoldoutCheck | None:
        """What the holdout says of the front; None where no member was scored there."""
        held = [self.held[m.policy_digest] for m in self.front if m.policy_digest in self.held]
        recheck = self.job.recheck
        dense = None if self.dense is None else self.held.get(self.dense.policy_digest)
        return check_front(held, dense=dense, confidence=recheck.confidence, resamples=recheck.resamples)

    def pick(self, rule: str) -> PickSummary:
        """Pick a member of the front by a rule in words.

        Raises:
            PickError: The rule can't be read, or nothing meets it.
        """
        if self.dense is None:
            raise UsageError(f"study {self.record.name!r} has no scored dense model yet; run its search first")
        picked = pick_member(
            rule,
            self.front,
            dense=self.dense,
            objectives=self.job.objectives,
            chance_quality=self.chance_quality,
            others=self.members,
        )
        return PickSummary(
            rule=rule,
            trial=picked.member.number,
            runner_up=None if picked.runner_up is None else picked.runner_up.number,
            explanation=picked.explanation,
        )

    @cached_property
    def origin(self) -> Origin | None:
        """The study that this one began with; None where it began with none."""
        return Origin.of(self.record)

    def took_over(self, number: int) -> bool:
        """Whether a trial was scored in the study that this one began with."""
        return self.origin is not None and number < self.origin.trials

    @property
    def metric(self) -> str:
        """Name of the quality metric."""
        return next((trial.metric for trial in self.trials if trial.metric), "quality")

    @property
    def task_metric(self) -> str | None:
        """Name of the task's metric, where quality is something else and the metric was measured on the holdout."""
        if self.job.quality is QualityMeasure.METRIC:
            return None
        return next((score.metric for score in self.holdout_by_metric.values()), None)

    def holdout_metric(self, policy_digest: str) -> MetricCheck | None:
        """The task's metric of a policy on the holdout; None where it is quality itself, or was not measured."""
        score = None if self.task_metric is None else self.holdout_by_metric.get(policy_digest)
        if score is None:
            return None
        low, high = _interval(self, score)
        return MetricCheck(value=score.value, low=low, high=high)

    def trial(self, number: int) -> TrialRecord:
        """Return a trial.

        Raises:
            UsageError: No such trial, or it has no score.
        """
        found = next((trial for trial in self.trials if trial.number == number), None)
        if found is None or found.state is not TrialState.COMPLETE or found.role is TrialRole.PROBE:
            what = "there is none" if found is None else f"it is {found.state.value}"
            if found is not None and found.role is TrialRole.PROBE:
                what = "it was a probe on few examples"
            raise UsageError(
                f"trial {number} of study {self.record.name!r} must have a score; {what}; "
                f"`paretrim front {self.record.name}` lists what can be exported"
            )
        return found


def summarise(repository: Repository, name: str, *, with_scores: bool = True) -> StudySummary:
    """Read a study.

    Args:
        repository: The database.
        name: Name of the study.
        with_scores: Whether the scores of single examples are read too, on which intervals and holdout rest.

    Raises:
        UsageError: No study of that name.
    """
    record = repository.find_study(name)
    if record is None:
        known = ", ".join(study.name for study in repository.studies()) or "none"
        raise UsageError(f"no study {name!r} in the database; it has: {known}; check the name and --storage")
    fixed = json.loads(record.fixed_json)
    scores = repository.quality_store(fixed["evaluation"])
    metrics = repository.quality_store(fixed["job"].get("metric_evaluation", fixed["evaluation"]))
    return StudySummary(
        record=record,
        job=JobSpec.model_validate(json.loads(record.job_json)),
        trials=repository.trials(record.id),
        search=scores.all_of(Split.SEARCH) if with_scores else {},
        holdout=scores.all_of(Split.HOLDOUT) if with_scores else {},
        holdout_by_metric=metrics.all_of(Split.HOLDOUT) if with_scores else {},
        chance_quality=float(fixed["job"].get("chance_quality", 0.0)),
        foreign=tuple(fixed["job"].get("foreign_table", ())),
        extrapolated=int(fixed["job"].get("extrapolated", 0)),
    )


def load_front(name: str, storage: str, *, pick: str | None = None) -> SearchResult:
    """Read the front of a study again.

    Args:
        name: Name of the study.
        storage: URL of its database.
        pick: Rule that picks a member, in words; None picks none.

    Raises:
        UsageError: No study of that name, or nothing that the rule asks for.
    """
    summary = summarise(Repository(open_database(storage)), name)
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
    baselines = {t.number for t in summary.trials if t.role is TrialRole.BASELINE}
    nearest: Sequence[FrontMember] = ()
    if dense is not None and not front:
        nearest = least_violating(summary.members, summary.job.constraints, dense.quality)
    return SearchResult(
        study=summary.record.name,
        metric=summary.metric,
        task_metric=summary.task_metric,
        front=tuple(_row(summary, member) for member in front),
        baselines=() if dense is None else tuple(_row(summary, m) for m in summary.members if m.number in baselines),
        least_violating=tuple(_row(summary, member) for member in nearest),
        trials_done=sum(t.state.is_finished and t.role is TrialRole.TRIAL for t in summary.trials),
        hypervolume=volume,
        reference=summary.reference,
        holdout_check=summary.holdout_check,
        failures=failure_groups(summary.trials),
        mlflow_address=mlflow_address,
        foreign_table=bool(summary.foreign),
        extrapolated=summary.extrapolated,
        interrupted=interrupted,
        target=describe_target(summary.job.target),
        origin=None if summary.origin is None else summary.origin.study,
        energy_heading=_energy_heading(summary) if Objective.ENERGY_MJ in costs_named(summary.job) else None,
        names_memory=Objective.PEAK_MEMORY_BYTES in costs_named(summary.job),
        notes=notes,
    )


def _energy_heading(summary: StudySummary) -> str:
    return "energy (estimated)" if energy_basis(summary) is EnergyBasis.ESTIMATED else "energy"


def energy_basis(summary: StudySummary) -> EnergyBasis | None:
    """Return whether energies are measured or estimated; None where they are not known."""
    return next((t.costs.energy_basis for t in summary.trials if t.costs.energy_basis is not None), None)


def costs_named(job: JobSpec) -> tuple[Objective, ...]:
    """Return the costs that a job has among its objectives or bounds."""
    bounded = cost_bounds(job.constraints)
    return tuple(o for o in Objective if o is not Objective.QUALITY and (o in job.objectives or o in bounded))


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


def _held_out(summary: StudySummary, member: FrontMember, score: Quality) -> HeldOut:
    low, high = _interval(summary, score)
    return HeldOut(
        trial=member.number,
        name=member.name,
        quality=member.quality,
        holdout_quality=score.value,
        low=low,
        high=high,
        per_example=score.per_example,
    )


def _level_with(summary: StudySummary, held: HeldOut) -> tuple[int, ...]:
    """Numbers of the front members that the holdout can't tell from a policy."""
    rivals = ((member.number, summary.held.get(member.policy_digest)) for member in summary.front)
    return tuple(n for n, rival in rivals if rival is not None and rival is not held and rival.overlaps(held))


def _interval(summary: StudySummary, quality: Quality) -> tuple[float, float]:
    recheck = summary.job.recheck
    return bootstrap_interval(quality.per_example, confidence=recheck.confidence, resamples=recheck.resamples)


def _point(summary: StudySummary, trial: TrialRecord, on_front: set[str], groups: Mapping[str, int]) -> PointView:
    dense = summary.dense
    assert dense is not None
    member = front_member(trial)
    scored = summary.search.get(trial.policy.digest)
    held = summary.held.get(trial.policy.digest)
    shown = trial.policy.digest in on_front or trial.role is TrialRole.BASELINE
    low, high = _interval(summary, scored) if scored is not None and shown else (None, None)
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
