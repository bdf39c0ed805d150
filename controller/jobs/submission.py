"""Submits jobs so that asking twice changes nothing, and continues those that ended before their time."""

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from controller.differences import differences
from controller.errors import UsageError
from controller.jobs.cluster import AlreadySubmittedError, Cluster, ClusterError
from controller.jobs.identity import submission_id_of
from controller.jobs.package import JobPackage
from controller.jobs.records import Attempt, JobState, SubmitOutcome, SubmitReport, SubmittedJob
from controller.owner import this_user

_POLL_S = 0.5
_DIFFERENCES_SHOWN = 12


class JobConflictError(UsageError):
    """The cluster has another job of that name."""


def jobs_of(cluster: Cluster) -> list[SubmittedJob]:
    """Return the jobs of a cluster, the one that was last started first."""
    return sorted(_grouped(cluster.attempts()), key=lambda job: job.latest.started or "", reverse=True)


def find_job(cluster: Cluster, reference: str) -> SubmittedJob:
    """Return a job by its id, or the newest one by its name.

    Raises:
        UsageError: The cluster has no such job.
    """
    jobs = jobs_of(cluster)
    found = next((job for job in jobs if job.id == reference), None)
    found = found or next((job for job in jobs if job.name == reference), None)
    if found is None:
        known = ", ".join(job.id for job in jobs[:10]) or "none"
        raise UsageError(
            f"the cluster at {cluster.address} must have the job; it knows no {reference}; it has: {known}; after a "
            "restart of the cluster submit the job's file again: its study goes on where it was"
        )
    return found


def submit(
    cluster: Cluster,
    package: JobPackage,
    *,
    cpus: float,
    workdir: str | None = None,
    replace_ended: bool = False,
    log: str | None = None,
) -> SubmitReport:
    """Submit a job, unless the cluster has it already.

    Args:
        cluster: Where to.
        package: The job.
        cpus: CPU cores that its controller reserves, 0 or more.
        workdir: Folder on the cluster to run in; None leaves that to the cluster.
        replace_ended: Whether an ended job of the same name and other content is forgotten.
        log: Form of its log lines; None leaves it to the cluster.

    Raises:
        JobConflictError: Another job of that name is active, or has ended and was searched on something else.
        ClusterError: The cluster refuses it.
    """
    job_id, name = package.job_id, package.job.name
    namesakes = [job for job in jobs_of(cluster) if job.name == name]
    same = next((job for job in namesakes if job.id == job_id), None)
    others = [job for job in namesakes if job.id != job_id]
    for other in others:
        _check_no_conflict(other, package, replace_ended=replace_ended)
    if same is not None:
        outcome = SubmitOutcome.ALREADY_ENDED if same.state.is_ended else SubmitOutcome.ALREADY_ACTIVE
        return SubmitReport(job_id=job_id, outcome=outcome, attempt=same.latest)
    if replace_ended:
        for attempt in (attempt for other in others for attempt in other.attempts):
            cluster.forget(attempt.submission_id)
    first = Attempt(
        submission_id=submission_id_of(job_id, 1),
        job_id=job_id,
        name=name,
        number=1,
        state=JobState.PENDING,
        user=this_user(),
        content=package.content,
        workdir=workdir,
        cpus=cpus,
    )
    return _start(cluster, first, SubmitOutcome.SUBMITTED, log=log)


def resume(cluster: Cluster, reference: str, *, log: str | None = None) -> SubmitReport:
    """Run an ended job again, as the next attempt of the same id; its study goes on where it was.

    Raises:
        UsageError: The cluster has no such job, it has succeeded, or another of its name is active.
        ClusterError: The cluster refuses it.
    """
    job = find_job(cluster, reference)
    if not job.state.is_ended:
        return SubmitReport(job_id=job.id, outcome=SubmitOutcome.ALREADY_ACTIVE, attempt=job.latest)
    if job.state is JobState.SUCCEEDED:
        raise UsageError(
            f"a job that is resumed has not come to its end; {job.id} has succeeded; to search for longer, raise "
            "search.trials in its file and submit that"
        )
    package = JobPackage.unpack(dict(job.latest.content))
    for other in jobs_of(cluster):
        if other.name == job.name and other.id != job.id and not other.state.is_ended:
            raise _conflict(other, package, "is active")
    number = job.latest.number + 1
    following = replace(
        job.latest, submission_id=submission_id_of(job.id, number), number=number, user=this_user(), exit_code=None
    )
    return _start(cluster, following, SubmitOutcome.RESUMED, log=log)


def stop(cluster: Cluster, reference: str, *, wait_s: float) -> Attempt:
    """Ask a job to stop, and wait until it did.

    Args:
        cluster: Where it runs.
        reference: Its id or name.
        wait_s: Longest time to wait in seconds; 0 does not wait.

    Returns:
        The newest attempt; still active only where waiting took too long, or was not asked for.

    Raises:
        UsageError: The cluster has no such job, or it has ended already.
    """
    attempt = find_job(cluster, reference).latest
    if attempt.state.is_ended:
        raise UsageError(f"only a job that is active can be stopped; {attempt.job_id} has {attempt.state} already")
    cluster.stop(attempt.submission_id)
    deadline = time.monotonic() + wait_s
    while not attempt.state.is_ended and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        attempt = cluster.attempt(attempt.submission_id) or attempt
    return attempt


def attempt_of(job: SubmittedJob, number: int | None) -> Attempt:
    """Return an attempt of a job; the newest for None.

    Raises:
        UsageError: The job has no such attempt.
    """
    found = job.latest if number is None else next((a for a in job.attempts if a.number == number), None)
    if found is None:
        raise UsageError(f"{job.id} has attempts {', '.join(str(a.number) for a in job.attempts)}; got {number}")
    return found


def _start(cluster: Cluster, attempt: Attempt, outcome: SubmitOutcome, *, log: str | None) -> SubmitReport:
    try:
        cluster.submit(attempt, log=log)
    except AlreadySubmittedError:
        outcome = SubmitOutcome.ALREADY_ACTIVE
    started = cluster.attempt(attempt.submission_id)
    if started is None:
        raise ClusterError(f"the cluster at {cluster.address} took {attempt.submission_id} and does not list it")
    return SubmitReport(job_id=attempt.job_id, outcome=outcome, attempt=started)


def _check_no_conflict(other: SubmittedJob, package: JobPackage, *, replace_ended: bool) -> None:
    """Refuse two jobs of one name, unless the new one only goes on with the study of one that ended."""
    if not other.state.is_ended:
        raise _conflict(other, package, "is active")
    if replace_ended:
        return
    before = JobPackage.unpack(dict(other.latest.content)).job
    if before.storage != package.job.storage or before.fixed_content() != package.job.fixed_content():
        raise _conflict(other, package, f"has {other.state}")


def _conflict(other: SubmittedJob, package: JobPackage, what: str) -> JobConflictError:
    before = JobPackage.unpack(dict(other.latest.content)).job.public_dict()
    lines = list(differences(before, package.job.public_dict()))
    more = [f"and {len(lines) - _DIFFERENCES_SHOWN} more"] if len(lines) > _DIFFERENCES_SHOWN else []
    remedy = f"`paretrim stop {other.id}` first" if what == "is active" else "submit it with --replace"
    return JobConflictError(
        "\n  ".join(
            [
                f"one name is one job; {other.id} {what}, and differs in:",
                *lines[:_DIFFERENCES_SHOWN],
                *more,
                f"give the job another name, or {remedy}",
            ]
        )
    )


def _grouped(attempts: Iterable[Attempt]) -> list[SubmittedJob]:
    ordered = sorted(attempts, key=lambda attempt: (attempt.job_id, attempt.number))
    groups = ((job_id, tuple(group)) for job_id, group in groupby(ordered, key=lambda attempt: attempt.job_id))
    return [SubmittedJob(id=job_id, name=group[0].name, attempts=group) for job_id, group in groups]
