"""What the database says of a job's study: counts, front, best policy, failures."""

from collections import Counter

from sqlalchemy.exc import SQLAlchemyError

from controller.errors import PreflightError
from controller.front import hypervolume
from controller.jobs.records import JobStatus, StudyStatus, SubmittedJob
from controller.outcome import failure_groups
from controller.problems import mask_passwords
from controller.progress import best_member
from controller.storage.engine import is_missing_file, open_database
from controller.storage.repository import Repository
from controller.study_summary import StudySummary, summarise
from controller.study_view import number, size_text


def job_status(job: SubmittedJob, storage: str | None) -> JobStatus:
    """Combine what the cluster and the database know of a job.

    Args:
        job: The job as the cluster has it.
        storage: URL of the database as it is reached from here; None takes the one that the job names.
    """
    url = storage or job.latest.content.get("storage")
    if url is None:
        return JobStatus(
            job=job, storage=None, study=None, study_missing="the cluster keeps it; name its database: --storage URL"
        )
    study, missing = None, ""
    try:
        study = _read(url, job.name)
        missing = "" if study is not None else "the job has not begun to search"
    except (PreflightError, SQLAlchemyError) as error:
        missing = mask_passwords(str(error).splitlines()[0])
    return JobStatus(job=job, storage=mask_passwords(url), study=study, study_missing=missing)


def _read(url: str, name: str) -> StudyStatus | None:
    if is_missing_file(url):  # opening it would make it
        return None
    engine = open_database(url)
    try:
        repository = Repository(engine)
        return None if repository.find_study(name) is None else _status(summarise(repository, name, with_scores=False))
    finally:
        engine.dispose()


def _status(summary: StudySummary) -> StudyStatus:
    dense, job = summary.dense, summary.job
    volume, best = None, None
    if dense is not None:
        volume = hypervolume(summary.front, job.objectives, dense=dense, chance_quality=summary.chance_quality)
        best = best_member(summary.front, job.constraints, dense)
    in_words = None
    if best is not None:
        in_words = (
            f"{best.name}: {summary.metric} {number(best.quality)} at {number(best.latency_ms)} ms, "
            f"{size_text(best.size_bytes)}"
        )
    return StudyStatus(
        state=summary.record.state.value,
        trials=dict(Counter(trial.state.value for trial in summary.trials)),
        trials_total=job.search.trials,
        front_size=len(summary.front),
        hypervolume=volume,
        best=in_words,
        failures=failure_groups(summary.trials),
        updated=summary.record.updated.isoformat(timespec="seconds"),
    )
