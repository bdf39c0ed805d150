"""What is known of submitted jobs: plain records that turn into JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from controller.record import Record
from controller.results import FailureGroup


class JobState(StrEnum):
    """What an attempt is doing, in Ray's words."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Record):
    """One run of a job on the cluster.

    Attributes:
        submission_id: Its name on the cluster.
        job_id: Id of the job.
        name: Name of the study.
        number: Counts the attempts of the job from 1.
        state: What it is doing.
        message: What the cluster says of it.
        exit_code: Exit status of the search; None where the cluster does not know it.
        started: When it was submitted, as ISO 8601 in UTC; None where unknown.
        ended: When it came to its end, as ISO 8601 in UTC; None before that.
        user: Who submitted it, as that machine called him.
        content: The job as it was submitted.
        workdir: Folder on the cluster in which it runs; None for the cluster's own.
        cpus: CPU cores that the controller reserves.
    """

    submission_id: str
    job_id: str
    name: str
    number: int
    state: JobState
    message: str = ""
    exit_code: int | None = None
    started: str | None = None
    ended: str | None = None
    user: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    workdir: str | None = None
    cpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedJob(Record):
    """A job with its attempts.

    Attributes:
        id: Id of the job.
        name: Name of the study.
        attempts: In the order in which they were made; there is at least one.
    """

    id: str
    name: str
    attempts: tuple[Attempt, ...]

    @property
    def latest(self) -> Attempt:
        """The newest attempt."""
        return self.attempts[-1]

    @property
    def state(self) -> JobState:
        """What the newest attempt is doing."""
        return self.latest.state


class SubmitOutcome(StrEnum):
    """What became of a submission."""

    SUBMITTED = "submitted"
    ALREADY_ACTIVE = "already active"
    ALREADY_ENDED = "already ended"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitReport(Record):
    """What `paretrim submit` and `paretrim resume` did.

    Attributes:
        job_id: Id of the job.
        outcome: What became of it.
        attempt: The newest attempt, after that.
    """

    job_id: str
    outcome: SubmitOutcome
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class JobList(Record):
    """Jobs of a cluster.

    Attributes:
        address: The cluster.
        jobs: The newest first.
    """

    address: str
    jobs: tuple[SubmittedJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStatus(Record):
    """A study as its database has it.

    Attributes:
        state: What it is doing, as it was last written.
        trials: Trials by state, baselines included.
        trials_total: Trials that the job asks for, baselines apart.
        front_size: Members of the front.
        hypervolume: What the front covers, in units of the dense model; None before the dense model is scored.
        best: The best policy under the constraints, for people; None before there is one.
        failures: Failed trials by reason, each with an example.
        updated: When it was last written, as ISO 8601 in UTC.
    """

    state: str
    trials: Mapping[str, int]
    trials_total: int
    front_size: int
    hypervolume: float | None
    best: str | None
    failures: tuple[FailureGroup, ...]
    updated: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus(Record):
    """A job on its cluster, and its study.

    Attributes:
        job: The job.
        storage: Database that was asked, password masked; None where none is known.
        study: What it says; None where it could not be asked, or has no such study yet.
        study_missing: Why there is no study; empty where there is one.
    """

    job: SubmittedJob
    storage: str | None
    study: StudyStatus | None
    study_missing: str = ""


def moment(milliseconds: int | None) -> str | None:
    """Return a moment that the cluster gives in milliseconds since 1970 as ISO 8601 in UTC."""
    from datetime import UTC

    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
