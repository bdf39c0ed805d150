"""A study read back from the database, as results for people and as the view that plots are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from controller.counting import count_trials
from controller.errors import UsageError
from controller.front import (
    FrontMember,
    feasible,
    knee,
    pareto_front,
    reference_point,
)
from controller.job import JobSpec
from controller.latency_words import MARGIN_PCT, stored_sentence
from controller.pick import pick as pick_member
from controller.progress import front_member
from controller.rechecking.flattery import flattery_of
from controller.rechecking.recheck import HeldOut, check_front
from controller.results import HoldoutCheck, MetricCheck, PickSummary
from controller.storage.engine import place_of
from controller.storage.records import StudyRecord, TrialRecord, TrialRole, TrialState
from controller.storage.repository import Repository
from controller.study_config import Origin
from controller.trial_counts import TrialCounts
from evaluators.confidence import bootstrap_interval
from evaluators.latency.table import EnergyBasis, LatencyTable
from evaluators.scores import Quality, QualityMeasure
from workers.protocol import Split

_DIGITS = 8


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
        measured_on: The table's hardware in words, where the study is meant for it; else None.
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
    measured_on: str | None = None

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """What can't change once the study has trials."""
        content: dict[str, Any] = json.loads(self.record.fixed_json)
        return content

    @property
    def latency_margin_pct(self) -> float | None:
        """Per cent within which most measured times are expected; None where nobody measured that, or kept it."""
        margin_pct: float | None = self.fixed["job"].get(MARGIN_PCT)
        return margin_pct

    @property
    def latency_sentence(self) -> str:
        """How far latencies err, in words; empty where an earlier version made the study."""
        return stored_sentence(self.fixed["job"])

    @cached_property
    def members(self) -> list[FrontMember]:
        """Every scored policy."""
        return [member for trial in self.trials if (member := front_member(trial)) is not None]

    @cached_property
    def baselines(self) -> list[FrontMember]:
        """The dense model and the uniform policies, in their order, as far as they are scored."""
        scored = {member.policy_digest: member for member in reversed(self.members)}
        planned = (trial.policy.digest for trial in self.trials if trial.role is TrialRole.BASELINE)
        return [scored[digest] for digest in planned if digest in scored]

    @cached_property
    def dense(self) -> FrontMember | None:
        """The dense model; None before it is scored, or where it is no better than chance."""
        found = next((member for member in self.members if member.number == 0), None)
        return found if found is not None and found.quality > self.chance_quality else None

    @property
    def search_examples(self) -> int | None:
        """Examples of the search split; None before the dense model is scored on them."""
        dense = None if self.dense is None else self.search.get(self.dense.policy_digest)
        return None if dense is None else len(dense.per_example)

    @cached_property
    def counts(self) -> TrialCounts:
        """Its finished trials by what became of them."""
        return count_trials(self.trials, self.search_examples)

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
            warning=self.flattery_warning(picked.member.policy_digest),
        )

    def flattery_warning(self, policy_digest: str) -> str:
        """Say that the search split flatters a policy, and what helps; empty where that is not certain."""
        dense, recheck = self.dense, self.job.recheck
        digests = () if dense is None else (policy_digest, dense.policy_digest)
        search, holdout = ([scores[d] for d in digests if d in scores] for scores in (self.search, self.holdout))
        if len(search) < 2 or len(holdout) < 2:
            return ""
        found = flattery_of(
            (search[0], search[1]),
            (holdout[0], holdout[1]),
            confidence=recheck.confidence,
            resamples=recheck.resamples,
        )
        if found is None or not found.is_certain:
            return ""
        measure = " or score by `quality: fidelity`" if self.job.quality is QualityMeasure.METRIC else ""
        return (
            f"the search flatters it: against dense its {self.metric} is {found.search:+.4f} on the {found.examples} "
            f"search examples and {found.holdout:+.4f} on the holdout, further apart than their intervals explain "
            f"({found.margin:.4f}); go by the holdout, and search with more rows (`data: search`){measure}"
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
        low, high = interval_of(self, score)
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
        where = place_of(repository.engine.url.render_as_string(hide_password=True))
        raise UsageError(f"no study {name!r} in the database {where}; it has: {known}; check the name and --storage")
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
        measured_on=fixed["job"].get("measured_on"),
    )


def check_same_table(summary: StudySummary, table: LatencyTable) -> None:
    """Refuse a latency table that is no longer the one that a study was searched by.

    Raises:
        UsageError: It was measured again, calibrated or replaced since.
    """
    before = summary.fixed["target"]
    if table.checksum != before:
        raise UsageError(
            f"latencies of study {summary.record.name!r} are those of the table that it was searched by, "
            f"{before[:_DIGITS]}; the file has {table.checksum[:_DIGITS]} now: it was measured further, calibrated or "
            "replaced since; put it back, or explain the policy on the present one: paretrim explain with --table FILE"
        )


def energy_basis(summary: StudySummary) -> EnergyBasis | None:
    """Return whether energies are measured or estimated; None where they are not known."""
    return next((t.costs.energy_basis for t in summary.trials if t.costs.energy_basis is not None), None)


def _held_out(summary: StudySummary, member: FrontMember, score: Quality) -> HeldOut:
    low, high = interval_of(summary, score)
    return HeldOut(
        trial=member.number,
        name=member.name,
        quality=member.quality,
        holdout_quality=score.value,
        low=low,
        high=high,
        per_example=score.per_example,
    )


def interval_of(summary: StudySummary, quality: Quality) -> tuple[float, float]:
    """Bootstrap interval of a score, by the confidence and resamples of the job."""
    recheck = summary.job.recheck
    return bootstrap_interval(quality.per_example, confidence=recheck.confidence, resamples=recheck.resamples)
