"""What is done to studies and trials, each in one short transaction."""

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from controller.storage.engine import READ_ONLY
from controller.storage.quality import QualityStore, keep_quality
from controller.storage.records import (
    AttemptOutcome,
    AttemptRecord,
    StudyRecord,
    StudyState,
    TellOutcome,
    TrialRecord,
    TrialState,
    canonical_json,
)
from controller.storage.rows import study_record, trial_record, trial_row
from controller.storage.schema import STUDY_SCHEMA_VERSION, AttemptRow, StudyRow, TrialRow
from evaluators.scores import Quality

_logger = logging.getLogger(__name__)


class StudyLostError(RuntimeError):
    """Another controller has taken the study over; this one must not write to it any more."""


class Repository:
    """Studies and trials of a database.

    Every write to a study names the fence under which its controller took it: a controller that was replaced while
    it slept can't spoil what its successor does.

    Args:
        engine: From `open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def studies(self) -> list[StudyRecord]:
        """Return all studies, the newest first."""
        with self._read() as session:
            rows = session.scalars(select(StudyRow).order_by(StudyRow.created_at.desc(), StudyRow.name))
            return [study_record(row) for row in rows]

    def find_study(self, name: str) -> StudyRecord | None:
        """Return the study of that name, or None."""
        with self._read() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.name == name))
            return None if row is None else study_record(row)

    def trials(self, study_id: str) -> list[TrialRecord]:
        """Return all trials of a study in order of their numbers."""
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(TrialRow.number)
        with self._read() as session:
            return [trial_record(row) for row in session.scalars(query.execution_options(yield_per=500))]

    def attempts(self, study_id: str) -> list[AttemptRecord]:
        """Return all attempts of a study, by trial and then in the order in which they were made."""
        query = (
            select(AttemptRow).where(AttemptRow.study_id == study_id).order_by(AttemptRow.number, AttemptRow.ordinal)
        )
        with self._read() as session:
            return [_attempt_record(row) for row in session.scalars(query)]

    def quality_store(self, evaluation_digest: str) -> QualityStore:
        """Return the scores that were paid for under this evaluation."""
        return QualityStore(self.engine, evaluation_digest)

    def create_study(
        self,
        *,
        name: str,
        job_digest: str,
        job: Mapping[str, Any],
        fixed_json: str,
        space_digest: str,
        objectives: Sequence[str],
        trials: Iterable[TrialRecord] = (),
    ) -> StudyRecord:
        """Create a study together with its first trials."""
        now = datetime.now(UTC)
        row = StudyRow(
            id=uuid.uuid4().hex[:12],
            name=name,
            schema_version=STUDY_SCHEMA_VERSION,
            state=StudyState.RUNNING,
            job_digest=job_digest,
            job_json=canonical_json(dict(job)),
            fixed_json=fixed_json,
            space_digest=space_digest,
            objectives_json=canonical_json(list(objectives)),
            fence=1,
            created_at=now,
            updated_at=now,
        )
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.add(row)
            session.flush()
            session.add_all(trial_row(row.id, trial) for trial in trials)
        return study_record(row)

    def take_over(self, name: str, *, job_digest: str, job: Mapping[str, Any]) -> StudyRecord:
        """Continue a study: shut out its former controller and give up the attempts that it left open.

        Their trials wait again, and the attempt does not count against them.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            row = session.scalars(select(StudyRow).where(StudyRow.name == name).with_for_update()).one()
            row.fence += 1
            row.state = StudyState.RUNNING
            row.job_digest, row.job_json = job_digest, canonical_json(dict(job))
            row.updated_at = datetime.now(UTC)
            left = select(AttemptRow).where(AttemptRow.study_id == row.id, AttemptRow.outcome == AttemptOutcome.OPEN)
            for attempt in session.scalars(left):
                _interrupt(session, attempt, "the controller ended before the result came")
        return study_record(row)

    def set_state(self, study: StudyRecord, state: StudyState) -> None:
        """Write what the study is doing."""
        with self._write(study) as (_session, row):
            row.state = state

    def put_trial(self, study: StudyRecord, trial: TrialRecord) -> None:
        """Write a whole trial that needs no worker: a repeat, one paid for before, or one whose costs are too high."""
        with self._write(study) as (session, _):
            session.merge(trial_row(study.id, trial))

    def start_attempt(self, study: StudyRecord, trial: TrialRecord, *, worker: str) -> None:
        """Write a whole trial, and that a worker is asked for its scores under the token that it bears."""
        assert trial.attempt is not None
        attempts = select(func.max(AttemptRow.ordinal)).where(
            AttemptRow.study_id == study.id, AttemptRow.number == trial.number
        )
        with self._write(study) as (session, _):
            session.merge(trial_row(study.id, trial))
            session.flush()
            session.add(
                AttemptRow(
                    token=trial.attempt,
                    study_id=study.id,
                    number=trial.number,
                    ordinal=1 + (session.scalar(attempts) or 0),
                    worker=worker,
                    outcome=AttemptOutcome.OPEN,
                    started_at=datetime.now(UTC),
                )
            )

    def complete(
        self, study: StudyRecord, token: str, quality: Quality, *, evaluation_digest: str, split: str
    ) -> TellOutcome:
        """Record the quality that an attempt brought, once; the trial knows its costs already.

        An estimate from a trial that stopped early is the trial's alone: it depends on what the trial was up against.
        """
        with self._write(study) as (session, _):
            attempt, outcome = _open_attempt(session, study, token)
            if attempt is None:
                return outcome
            row = session.get_one(TrialRow, (study.id, attempt.number))
            trial = trial_record(row).scored(quality)
            session.merge(trial_row(study.id, trial))
            _end(attempt, AttemptOutcome.REPORTED)
            if not quality.stopped_early:
                keep_quality(session, evaluation_digest, row.policy_digest, split, quality)
        return TellOutcome.ACCEPTED

    def fail(self, study: StudyRecord, token: str, *, reason: str, message: str, retry: bool) -> TellOutcome:
        """Record why an attempt brought no scores, once.

        Args:
            study: The study.
            token: The attempt.
            reason: A value of `FailureReason`.
            message: What happened, for people.
            retry: Whether the trial waits for another attempt; else it has failed.
        """
        with self._write(study) as (session, _):
            attempt, outcome = _open_attempt(session, study, token)
            if attempt is None:
                return outcome
            row = session.get_one(TrialRow, (study.id, attempt.number))
            row.state = TrialState.WAITING if retry else TrialState.FAIL
            if not retry:
                row.failure_reason, row.failure_message, row.finished_at = reason, message, datetime.now(UTC)
            _end(attempt, AttemptOutcome.FAILED, reason, message)
        return TellOutcome.ACCEPTED

    def interrupt(self, study: StudyRecord, token: str, message: str) -> TellOutcome:
        """Give up an attempt through no fault of its policy; the trial waits again."""
        with self._write(study) as (session, _):
            attempt, outcome = _open_attempt(session, study, token)
            if attempt is None:
                return outcome
            _interrupt(session, attempt, message)
        return TellOutcome.ACCEPTED

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with Session(self.engine.execution_options(**READ_ONLY)) as session:
            yield session

    @contextmanager
    def _write(self, study: StudyRecord) -> Iterator[tuple[Session, StudyRow]]:
        with Session(self.engine) as session, session.begin():
            row = session.scalars(select(StudyRow).where(StudyRow.id == study.id).with_for_update()).one_or_none()
            if row is None or row.fence != study.fence:
                raise StudyLostError(
                    f"only the newest controller of study {study.name!r} may write to it; this one is number "
                    f"{study.fence}, the newest {row.fence if row else 'gone with the study'}; stop this one"
                )
            row.updated_at = datetime.now(UTC)
            yield session, row


def _open_attempt(session: Session, study: StudyRecord, token: str) -> tuple[AttemptRow | None, TellOutcome]:
    """Return the attempt if it may be told, else what becomes of the result."""
    attempt = session.get(AttemptRow, token)
    if attempt is None or attempt.study_id != study.id:
        _logger.warning("rejected a result of study %s: attempt %r is unknown", study.name, token)
        return None, TellOutcome.REJECTED
    if attempt.outcome == AttemptOutcome.OPEN:
        return attempt, TellOutcome.ACCEPTED
    if attempt.outcome == AttemptOutcome.REPORTED:
        return None, TellOutcome.REPEATED
    _logger.warning(
        "rejected a late result of study %s, trial %d: attempt %d had been given up (%s)",
        study.name,
        attempt.number,
        attempt.ordinal,
        attempt.message,
    )
    return None, TellOutcome.REJECTED


def _end(attempt: AttemptRow, outcome: AttemptOutcome, reason: str | None = None, message: str | None = None) -> None:
    attempt.outcome, attempt.reason, attempt.message = outcome, reason, message
    attempt.ended_at = datetime.now(UTC)


def _interrupt(session: Session, attempt: AttemptRow, message: str) -> None:
    _end(attempt, AttemptOutcome.INTERRUPTED, AttemptOutcome.INTERRUPTED, message)
    row = session.get_one(TrialRow, (attempt.study_id, attempt.number))
    row.state = TrialState.WAITING
    row.attempt_count -= 1


def _attempt_record(row: AttemptRow) -> AttemptRecord:
    return AttemptRecord(
        token=row.token,
        trial=row.number,
        ordinal=row.ordinal,
        worker=row.worker,
        outcome=AttemptOutcome(row.outcome),
        reason=row.reason,
        message=row.message,
        started=row.started_at,
        ended=row.ended_at,
    )
