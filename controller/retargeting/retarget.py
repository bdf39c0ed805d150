"""`paretrim retarget`: the front of a finished study on another target, from the scores that it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller.counting import evaluations_of
from controller.dispatch import search_inline
from controller.errors import UsageError
from controller.job import JobSpec
from controller.job_file import anchored
from controller.preparation import PricedSpace, describe, price, work_folder
from controller.progress import StudyProgress
from controller.report_details import details_of
from controller.results import Progress
from controller.retargeting.carry_over import CarriedOver, carry_over, to_score_again
from controller.retargeting.job import is_of_another_device, retargeted_job
from controller.retargeting.outcome import is_new, outcome_of, write_outcome
from controller.retargeting.report import RetargetResult
from controller.retargeting.target_change import TargetChange, differences
from controller.search import score_on_holdout
from controller.stages import Stages
from controller.storage.engine import open_existing
from controller.storage.records import StudyRecord, StudyState, TrialRecord, TrialRole, TrialState
from controller.storage.repository import Repository
from controller.study import Study
from controller.study_config import Origin, StudyConfig
from controller.study_opening import open_record
from controller.study_summary import StudySummary, summarise
from evaluators.latency.table import load_table
from evaluators.scores import QualityMeasure
from workers.protocol import Split
from workers.trial import TrialWorker

SAME_CALLS = 6
"""Policies that may be scored for another target by default: what the scores of the first one leave open is little."""
OTHER_CALLS = 24
"""The same where calls have another size: about as many as a front has members, all of which must be scored again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """A study on its way to another target.

    Attributes:
        repository: The database.
        origin: The study.
        job: Its job for the other target.
        priced: Its policies' costs there.
        carried: Its trials there.
        worker: Scores policies; None where nothing is to be scored.
        evaluations: Policies that may be scored.
        measured_on: Another device in words, where the study is meant for it; else None.
    """

    repository: Repository
    origin: StudySummary
    job: JobSpec
    priced: PricedSpace
    carried: CarriedOver
    worker: TrialWorker | None
    evaluations: int
    measured_on: str | None

    @property
    def evaluation_digest(self) -> str:
        """Digest of what scores for the other target depend on."""
        return _evaluation_of(self.origin) if self.worker is None else self.worker.evaluation_digest


def run_retarget(
    study: str, storage: str, change: TargetChange, on_progress: Callable[[Progress], None]
) -> RetargetResult:
    """Price a study's trials on another target, solve its front anew, and score only what the new front lacks.

    Quality does not depend on the device: as long as calls have as many examples as before, all scores are taken over,
    and without an evaluation there is a front already. In calls of another size they are estimates (see `carry_over`);
    the members that the front would have by them are scored first.

    A table may be of another device: latencies hold there then, not here, and every result says so.

    The result is a study of its own, linked to the first. The same call continues it, with more evaluations if asked
    for. Policies are scored in this process one after another, without racing: they are few, and each is meant for the
    front.

    Args:
        study: Name of the study.
        storage: URL of its database.
        change: The other target, the number of evaluations, and the name of the result.
        on_progress: Told of every stage.

    Raises:
        UsageError: No such study, none with scores, or the target is no other one.
        ForeignTableError: The table is of another runtime or number of threads, or of other people's measurements, and
            that is not allowed.
        MissingEntryError: The table lacks an operator that the space can reach.
        PreflightError: No policy meets the constraints there.
    """
    stages = Stages(on_progress)
    stages("reading the study")
    repository = Repository(open_existing(storage))
    origin = summarise(repository, study)
    if origin.dense is None:
        raise UsageError(f"a retarget takes over scores; study {study!r} has none yet; run its search first")
    job = anchored(retargeted_job(origin.job.model_copy(update={"storage": storage}), change), Path.cwd())
    priced = price(job, describe(job), stages)
    if not differences(origin.job.target, job.target) and priced.table_checksum == _fixed(origin)["target"]:
        raise UsageError(f"a retarget needs another target than that of study {study!r}; the table is the same one")
    same_calls = job.target.batch == origin.job.target.batch
    evaluations = change.evaluations if change.evaluations is not None else (SAME_CALLS if same_calls else OTHER_CALLS)
    worker = _worker(origin, priced, stages, same_calls=same_calls) if evaluations or not same_calls else None
    move = _Move(
        repository=repository,
        origin=origin,
        job=job,
        priced=priced,
        carried=carry_over(origin.trials, priced.description.space, priced.costs.costs, same_calls=same_calls),
        worker=worker,
        evaluations=evaluations,
        measured_on=priced.measured_on if _is_elsewhere(change, job) else None,
    )
    notes = [*priced.notes, *_growth(move)]
    record = _score(move, stages)
    if worker is not None:
        score_on_holdout(job, repository, worker, stages, notes)
    stages("writing the report")
    summary = summarise(repository, record.name)
    report = outcome_of(origin, summary, priced, left_out=move.carried.left_out, notes=notes)
    details = details_of(summary, priced, repository)
    return write_outcome(report, summary, details, work_folder(job.storage) / "reports" / record.name)


def _is_elsewhere(change: TargetChange, job: JobSpec) -> bool:
    return change.table is not None and is_of_another_device(load_table(change.table), job.target)


def _fixed(summary: StudySummary) -> dict[str, object]:
    content: dict[str, object] = json.loads(summary.record.fixed_json)
    return content


def _evaluation_of(summary: StudySummary) -> str:
    return str(_fixed(summary)["evaluation"])


def _worker(origin: StudySummary, priced: PricedSpace, stages: Stages, *, same_calls: bool) -> TrialWorker:
    """A worker for the other target, with the origin's own model and data."""
    stages("reading model and data")
    worker = TrialWorker(priced.description.spec)
    if same_calls and worker.evaluation_digest != _evaluation_of(origin):
        raise UsageError(
            f"scores are taken over where the model and its data are the same; those of study {origin.record.name!r} "
            "changed since; put back what its search used, or search again under another name"
        )
    worker.prepare(lambda done, total: stages("making variants", done, total))
    return worker


def _config(move: _Move, link: Origin, *, trials: int) -> StudyConfig:
    """The study for the other target: what the origin knows of model and data, with other costs."""
    stored = json.loads(move.origin.record.fixed_json)["job"]
    declared = move.job.fixed_content()
    kept = {key: value for key, value in stored.items() if key not in declared}
    if "metric_evaluation" in kept and move.worker is not None:
        kept["metric_evaluation"] = move.worker.digest_of(QualityMeasure.METRIC)
    fixed = {**kept, **declared, **move.priced.fixed_content()}
    if move.measured_on is not None:
        fixed["measured_on"] = move.measured_on
    job = move.job.model_copy(update={"search": move.job.search.model_copy(update={"trials": max(1, trials)})})
    public = job.public_dict()
    public["target"]["table"] = str(move.priced.description.table)
    return StudyConfig(
        name=job.name,
        space=move.priced.description.space,
        objectives=job.objectives,
        constraints=job.constraints,
        sampler=job.search.sampler,
        seed=job.search.seed,
        trials=trials,
        examples=move.origin.search_examples,
        racing=job.search.racing,
        evaluation_digest=move.evaluation_digest,
        target_digest=move.priced.table_checksum,
        job_digest=job.digest,
        job=public,
        fixed=fixed,
        chance_quality=move.origin.chance_quality,
        origin=link,
    )


def _score(move: _Move, stages: Stages) -> StudyRecord:
    """Create the study, or continue it, and score what it lacks; return its record."""
    repository, job = move.repository, move.job
    found = repository.find_study(job.name)
    link = Origin(study=move.origin.record.name, id=move.origin.record.id, trials=len(move.carried.trials))
    if found is not None:
        link = _known_link(found, link)
    trials = list(move.carried.trials) if found is None else repository.trials(found.id)
    taken = evaluations_of((trial for trial in trials if trial.number < link.trials), move.origin.search_examples)
    config = _config(move, link, trials=taken + move.evaluations)
    record = open_record(config, repository, lambda: move.carried.trials)
    left = move.evaluations - sum(is_new(trial, link) for trial in trials)
    again = to_score_again(trials, job.objectives, job.constraints, config.chance_quality, most=left)
    baselines = {trial.policy.digest: trial.name for trial in trials if trial.role is TrialRole.BASELINE}
    for number, policy in enumerate(again, start=len(trials)):
        waiting = TrialRecord(
            number=number,
            role=TrialRole.TRIAL,
            name=baselines.get(policy.digest, f"trial {number}"),
            policy=policy,
            state=TrialState.WAITING,
            costs=move.priced.costs.costs(policy),
        )
        repository.put_trial(record, waiting)
    if move.worker is not None:
        _keep_dense(move)
    if move.worker is None or move.evaluations == 0:
        repository.set_state(record, StudyState.COMPLETE)
        return record

    def on_progress(progress: StudyProgress) -> None:
        stages("scoring for the other target", progress.trials_done - taken, move.evaluations)

    search_inline(Study.open(config, repository, move.priced.costs), move.worker, on_progress)
    return record


def _known_link(found: StudyRecord, wanted: Origin) -> Origin:
    """The link of a study that is there already."""
    link = Origin.of(found)
    if link is None or link.id != wanted.id:
        raise UsageError(
            f"study {found.name!r} exists and did not begin with the trials of {wanted.study!r}; give the result "
            "another name: --name"
        )
    return link


def _keep_dense(move: _Move) -> None:
    """Let the dense model's scores hold for calls of another size: nothing in it is quantized or calibrated."""
    dense = move.origin.dense
    assert dense is not None
    assert move.worker is not None
    stores = (
        (move.worker.evaluation_digest, Split.SEARCH, move.origin.search),
        (move.worker.evaluation_digest, Split.HOLDOUT, move.origin.holdout),
        (move.worker.digest_of(QualityMeasure.METRIC), Split.HOLDOUT, move.origin.holdout_by_metric),
    )
    for digest, split, scores in stores:
        if dense.policy_digest in scores:
            move.repository.quality_store(digest).put(dense.policy_digest, split, scores[dense.policy_digest])


def _growth(move: _Move) -> list[str]:
    """Say so where the origin has more trials now than were taken over."""
    found = move.repository.find_study(move.job.name)
    link = None if found is None else Origin.of(found)
    grown = 0 if link is None else len(move.carried.trials) - link.trials
    if grown <= 0:
        return []
    return [f"{move.origin.record.name} has {grown} trials more since they were taken over; another --name begins anew"]
