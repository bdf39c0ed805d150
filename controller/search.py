"""`paretrim search`: from a job to a front that is scored on the holdout and recorded in MLflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from controller.disk_space import check_disk_space
from controller.dispatch import RayOptions, search_on_ray
from controller.front import FrontMember
from controller.guard import evaluate_guarded
from controller.job import JobSpec, MlflowRuns
from controller.job_file import anchored
from controller.log_relay import relayed_log
from controller.outcome import check_better_than_chance
from controller.preparation import PricedSpace, describe, price, work_folder
from controller.progress import StudyProgress
from controller.recovery.stage import recover_front
from controller.report_details import details_of
from controller.report_files import write_report_files
from controller.results import FrontPoint, Progress, SearchResult
from controller.sealed_url import sealed
from controller.search_result import result_of
from controller.stages import Stages
from controller.storage.engine import open_database
from controller.storage.outbox import DatabaseOutbox
from controller.storage.repository import Repository
from controller.study_config import StopReason, StudyConfig
from controller.study_factory import StudyFactory
from controller.study_observer import StudyObserver
from controller.study_summary import summarise
from controller.study_view import StudyView, number
from controller.summary_view import view_of
from controller.tracking.tracker import Tracker, experiment_name
from evaluators.scores import QualityMeasure
from search_spaces.policy import Policy
from workers.protocol import Split, TrialFailure, TrialRequest, WorkerSpec
from workers.trial import TrialWorker, check_data

OnProgress = Callable[[Progress], None]
_FLUSH_S = 60.0


class _SearchStages(Stages):
    """Reports the search itself beside the stages around it."""

    def searching(self, progress: StudyProgress) -> None:
        """Report how far the search is."""
        done = progress.trials_done + progress.baselines_done
        total = progress.trials_total + progress.baselines_total
        eta_s = progress.elapsed_s * (total - done) / done if done else None
        self.on_progress(
            Progress(
                stage=progress.waits_for or "searching",
                trials_done=done,
                trials_total=total,
                baselines=progress.baselines_total,
                failed=progress.failed,
                front_size=len(progress.front),
                hypervolume=progress.hypervolume,
                best=None if progress.best is None else _in_words(progress.best),
                elapsed_s=self.elapsed_s,
                eta_s=eta_s,
                front=tuple(
                    FrontPoint(name=m.name, quality=m.quality, latency_ms=m.latency_ms, size_bytes=m.size_bytes)
                    for m in progress.front
                ),
                failures=progress.failures,
                examples_done=progress.examples,
            )
        )


def _in_words(member: FrontMember) -> str:
    return f"{member.name}: quality {number(member.quality)} at {number(member.latency_ms)} ms"


def run_search(job: JobSpec, on_progress: OnProgress, *, first: Sequence[Policy] = ()) -> SearchResult:
    """Run a job, or continue it: measure, compress, search, score the front on the holdout, record.

    Args:
        job: The job.
        on_progress: Told of every stage, and several times a second while the search runs.
        first: Policies that a new study scores before its sampler proposes any; those outside the space are left out.

    Returns:
        The front; `interrupted` says whether the search was stopped before its end.

    Raises:
        ValueError: Model, data, space, table or study does not fit; the types say which.
        RuntimeError: Most trials failed, or Ray did.
    """
    job = anchored(job, Path.cwd())
    stages = _SearchStages(on_progress)
    stages("reading the model")
    repository = Repository(open_database(job.storage))
    # Again where the study is opened; here, so that nobody waits for a model that can't be searched just now.
    repository.check_free(job.name)
    description = describe(job)
    check_data(description.spec)
    priced = price(job, description, stages)
    spec = priced.description.spec
    check_disk_space(spec.cache_dir, priced.description.space)
    notes = list(priced.notes)
    stages("reading model and data")
    worker = TrialWorker(spec)
    chance = _chance_quality(worker)
    worker.prepare(partial(stages, "making variants"))
    config = study_config_of(job, priced, worker, chance)
    # Opened here once as well: a conflict shows before Ray starts, and messages to MLflow need the study's identity.
    inside = tuple(policy for policy in first if worker.space.contains(policy))
    factory = StudyFactory(config=config, storage=job.storage, cost_of=priced.costs, first=inside)
    tracker = _start_tracking(job, repository, factory(stages).id, worker.metric, notes)
    try:
        stages("starting workers")
        with sealed(job.storage) as storage, relayed_log() as log_file:
            observer = StudyObserver(stage_seconds=stages.seconds, log_file=log_file)
            progress = search_on_ray(
                replace(factory, storage=storage, on_finished=observer),
                partial(TrialWorker, replace(spec, device="cuda" if job.search.gpus_per_worker else "cpu")),
                RayOptions(
                    parallel=job.search.parallel,
                    cpus_per_worker=job.search.cpus_per_worker,
                    gpus_per_worker=job.search.gpus_per_worker,
                ),
                on_progress=partial(_on_search, stages, tracker),
            )
        interrupted = progress.stop is StopReason.INTERRUPTED
        if not interrupted:
            score_on_holdout(job, repository, worker, stages, notes)
            recover_front(job, summarise(repository, job.name), worker, stages, notes)
        summary = summarise(repository, job.name)
        address = None
        if summary.dense is not None:
            view = view_of(summary)
            stages("writing the report")
            details = details_of(summary, priced, repository)
            files = write_report_files(view, work_folder(job.storage) / "reports" / job.name, details)
            address = _finish_tracking(job, view, tracker, files, stages, completed=not interrupted)
    finally:
        if tracker is not None:
            tracker.stop()
    return result_of(summary, mlflow_address=address, interrupted=interrupted, notes=tuple(notes))


def _chance_quality(worker: TrialWorker) -> float:
    """Quality of guessing, after a look at what must hold before anything that takes long is begun.

    Raises:
        FidelityError: Quality is fidelity, and the outputs are too many to be compared.
        DenseModelError: Quality is fidelity, which the dense model has in full, whatever it is worth; and by the task's
            metric it is no better than chance.
    """
    chance = worker.chance_quality
    if worker.spec.quality is not QualityMeasure.METRIC:
        dense = worker.evaluator(Split.SEARCH).dense_metric
        check_better_than_chance(worker.task.metric, dense, worker.chance_metric)
    return chance


def study_config_of(job: JobSpec, priced: PricedSpace, worker: TrialWorker, chance: float) -> StudyConfig:
    """Return what a study needs of its job, the space, the data, and the quality of guessing."""
    fixed = {**job.fixed_content(), "chance_quality": chance, **priced.fixed_content()}
    if job.quality is not QualityMeasure.METRIC:
        fixed["metric_evaluation"] = worker.digest_of(QualityMeasure.METRIC)
    timeout = job.search.timeout_minutes
    return StudyConfig(
        name=job.name,
        space=worker.space,
        objectives=job.objectives,
        constraints=job.constraints,
        sampler=job.search.sampler,
        seed=job.search.seed,
        trials=job.search.trials,
        examples=len(worker.splits.search),
        racing=job.search.racing,
        timeout_s=None if timeout is None else 60 * timeout,
        evaluation_digest=worker.evaluation_digest,
        target_digest=priced.table_checksum,
        job_digest=job.digest,
        job=_stored_job(job, priced.description.spec),
        fixed=fixed,
        chance_quality=chance,
    )


def _stored_job(job: JobSpec, spec: WorkerSpec) -> dict[str, object]:
    """The job as it is kept with the study: with the table that was measured for it."""
    content = job.public_dict()
    return {**content, "target": {**content["target"], "table": str(spec.target.table)}}


def score_on_holdout(
    job: JobSpec,
    repository: Repository,
    worker: TrialWorker,
    stages: Stages,
    notes: list[str],
) -> None:
    """Score front members and baselines on examples that the search has not seen, by the task's metric too."""
    summary = summarise(repository, job.name)
    scores = repository.quality_store(worker.evaluation_digest)
    metrics = repository.quality_store(worker.digest_of(QualityMeasure.METRIC))
    front = summary.front
    count = job.recheck.members
    if count is not None and count < len(front):
        step = len(front) / max(1, count)
        front = [front[int(index * step)] for index in range(count)]
    wanted = {member.policy_digest for member in front}
    wanted |= {member.policy_digest for member in summary.baselines}
    policies = {t.policy.digest: t.policy for t in summary.trials if t.policy.digest in wanted}
    for done, (digest, policy) in enumerate(policies.items()):
        stages("scoring the front on the holdout", done, len(policies))
        if digest not in summary.holdout or digest not in summary.holdout_by_metric:
            request = TrialRequest(trial=-1, attempt="holdout", policy=policy, split=Split.HOLDOUT)
            outcome = evaluate_guarded(worker, request)
            if isinstance(outcome, TrialFailure):
                notes.append(f"policy {digest} has no score on the holdout: {outcome.message}")
            else:
                scores.put(digest, Split.HOLDOUT, outcome.scores.quality)
                if outcome.scores.task_metric is not None:
                    metrics.put(digest, Split.HOLDOUT, outcome.scores.task_metric)


def _start_tracking(
    job: JobSpec, repository: Repository, study_id: str, metric: str, notes: list[str]
) -> Tracker | None:
    if not job.mlflow.enabled:
        return None
    tracker = Tracker(
        job.mlflow.tracking_uri,
        DatabaseOutbox(repository.engine, study_id),
        study=job.name,
        experiment=job.mlflow.experiment or experiment_name(job.model.id, job.model.task, job.target.name),
        say=notes.append,
    )
    public = job.public_dict()
    params = {
        "model": job.model.id,
        "task": job.model.task,
        "target": job.target.name,
        "batch": str(job.target.batch),
        "sampler": job.search.sampler,
        "trials": str(job.search.trials),
        "seed": str(job.search.seed),
        "objectives": ", ".join(job.objectives),
        "quality": job.quality.value,
    }
    tracker.begin(name=job.name, metric=metric, params=params, job_yaml=yaml.safe_dump(public, sort_keys=False))
    tracker.start()
    return tracker


def _on_search(stages: _SearchStages, tracker: Tracker | None, progress: StudyProgress) -> None:
    stages.searching(progress)
    if tracker is None:
        return
    best = progress.best
    tracker.progress(
        progress.trials_done + progress.baselines_done,
        {
            "hypervolume": progress.hypervolume,
            "feasible_trials": float(progress.feasible),
            "front_size": float(len(progress.front)),
            "best_quality": None if best is None else best.quality,
            "best_latency_ms": None if best is None else best.latency_ms,
            "best_size_bytes": None if best is None else float(best.size_bytes),
        },
    )


def _finish_tracking(
    job: JobSpec,
    view: StudyView,
    tracker: Tracker | None,
    files: Sequence[Path],
    stages: Stages,
    *,
    completed: bool,
) -> str | None:
    if tracker is None:
        return None
    stages("recording in MLflow")
    every_trial = job.mlflow.runs is MlflowRuns.ALL
    tracker.finish(view, files, completed=completed, every_trial=every_trial)
    tracker.flush(_FLUSH_S)
    address = tracker.address
    if address is None:
        return None
    return address.url if address.command is None else f"{address.url} after `{address.command}`"
