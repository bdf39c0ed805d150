"""What the database holds, as frozen records: nothing outside this package sees a row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from controller.storage.holder import Holder
from evaluators.scores import Costs, Quality
from search_spaces.policy import Policy


class StudyState(StrEnum):
    """What a study is doing, as far as its last controller said."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Ended before its number of trials: interrupted, timed out or failed. Searching again continues it."""
    COMPLETE = "complete"


class TrialRole(StrEnum):
    """Where a policy comes from."""

    BASELINE = "baseline"
    """The dense model or a uniform policy."""
    TRIAL = "trial"
    """Proposed by the sampler."""
    PROBE = "probe"
    """Proposed by the sampler to be scored on a rung only: it learns from it, and it is never on a front."""


class TrialState(StrEnum):
    """How far a trial is."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    """Its costs alone break a constraint, so its quality was not paid for; or scoring stopped early, as it could not
    enter the front any more, and its quality is an estimate."""
    FAIL = "fail"

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self not in (TrialState.WAITING, TrialState.RUNNING)


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    OPEN = "open"
    REPORTED = "reported"
    """It brought scores."""
    FAILED = "failed"
    """It brought a failure, or its worker died."""
    INTERRUPTED = "interrupted"
    """Its controller went away, or gave it up before it began; the trial is asked again."""


class TellOutcome(StrEnum):
    """What became of a result that was told."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    """The same attempt was told before; nothing changed."""
    REJECTED = "rejected"
    """The attempt is unknown or had been given up; nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What the controller of a running study is asked for.

    Attributes:
        stop: Whether it should stop.
        parallel: Worker slots; None for what the job says.
        trials: Number of trials; None for what the job says.
    """

    stop: bool = False
    parallel: int | None = None
    trials: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One study.

    Attributes:
        id: Identity in the database.
        name: Name for people, unique.
        state: What it is doing.
        job_digest: Digest of the job's content.
        job_json: The job, passwords masked.
        fixed_json: What can't change once there are trials, as canonical JSON.
        space_digest: Digest of the units and their choices.
        objectives: Names of the objectives.
        fence: Counts controllers of the study; only the newest may write.
        holder: The controller that has it; None for none.
        held_since: Since when, by the database's clock (UTC).
        lease_expires: When the holder counts as gone unless it renews, by the database's clock (UTC).
        controls: What its controller is asked for.
        created: When it was created (UTC).
        updated: When it was last written (UTC).
    """

    id: str
    name: str
    state: StudyState
    job_digest: str
    job_json: str
    fixed_json: str
    space_digest: str
    objectives: tuple[str, ...]
    fence: int
    holder: Holder | None = None
    held_since: datetime | None = None
    lease_expires: datetime | None = None
    controls: Controls = Controls()
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: Number in its study, from 0, without gaps; baselines come first.
        role: Baseline, trial or probe.
        name: Name for people ("dense", "keep 0.5, w8a8"); "trial 17" for a trial, "probe 17" for a probe.
        policy: What was scored.
        rung: Rung of the search split that was asked for, from 0; None for the whole split.
        state: How far it is.
        attempt: Token of the newest attempt; None before the first.
        attempts: Attempts so far that were not interrupted by the controller's end.
        metric: Name of the quality metric; None without a score.
        quality: The metric, larger is better; None without a score.
        share: Share of the examples behind the quality, above 0 to 1.
        kl_to_dense: Divergence of the outputs from the dense model's, in nats; None without a score.
        seconds: Wall time of the evaluation; None without a score.
        costs: Latency and size, known before the quality.
        repeat_of: Number of the earlier trial with the same policy that answered this one; None for none.
        violations: Constraint to how far it is broken, as far as known when the trial was pruned.
        reason: Why it failed, a value of `FailureReason`; None unless it did.
        message: What happened, for people.
        sampler_attributes: What the sampler noted about the trial, so that it continues after a resume.
        started: When the first attempt began (UTC).
        finished: When it came to its end (UTC).
    """

    number: int
    role: TrialRole
    name: str
    policy: Policy
    rung: int | None = None
    state: TrialState
    attempt: str | None = None
    attempts: int = 0
    metric: str | None = None
    quality: float | None = None
    share: float = 1.0
    kl_to_dense: float | None = None
    seconds: float | None = None
    costs: Costs
    repeat_of: int | None = None
    violations: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    message: str | None = None
    sampler_attributes: Mapping[str, Any] = field(default_factory=dict)
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def stopped_early(self) -> bool:
        """Whether scoring stopped before the end, as the trial could not enter the front any more."""
        return self.state is TrialState.PRUNED and self.quality is not None

    def scored(self, quality: Quality) -> "TrialRecord":
        """Return the trial, completed with a quality; pruned if scoring stopped early."""
        return replace(
            self,
            state=TrialState.PRUNED if quality.stopped_early else TrialState.COMPLETE,
            metric=quality.metric,
            quality=quality.value,
            share=quality.share,
            kl_to_dense=quality.kl_to_dense,
            seconds=quality.seconds,
            finished=datetime.now(UTC),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One try at a trial.

    Attributes:
        token: Identity of the attempt.
        trial: Number of the trial.
        ordinal: Counts the attempts of the trial from 1, interrupted ones too.
        worker: Name of the worker slot.
        outcome: How it ended.
        reason: Why it brought no scores; None if it did or may still.
        message: What happened, for people.
        started: When it began (UTC).
        ended: When it ended (UTC); None while it is open.
    """

    token: str
    trial: int
    ordinal: int
    worker: str
    outcome: AttemptOutcome
    reason: str | None = None
    message: str | None = None
    started: datetime
    ended: datetime | None = None


def canonical_json(body: Any) -> str:
    """Write JSON with sorted keys and no spaces; NaN and infinity are refused."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
