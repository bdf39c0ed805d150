"""Rows of trials and attempts: how they are written, and how an attempt ends, on a connection."""

import logging
from datetime import UTC, datetime

from sqlalchemy import Connection, RowMapping, Table, select, update
from sqlalchemy.dialects import postgresql, sqlite

from controller.storage.records import (
    AttemptOutcome,
    AttemptRecord,
    StudyRecord,
    TellOutcome,
    TrialRecord,
    TrialState,
)
from controller.storage.rows import trial_values
from controller.storage.schema import ATTEMPTS, TRIALS

_logger = logging.getLogger(__name__)


def inserting(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insertion that may say what becomes of a row that is there; both databases have it in the same words."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def put_row(connection: Connection, study: StudyRecord, trial: TrialRecord) -> None:
    """Write a whole trial, whether or not there is one of its number."""
    values = trial_values(study.id, trial)
    changed = {name: value for name, value in values.items() if name not in ("study_id", "number")}
    statement = inserting(connection, TRIALS).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=["study_id", "number"], set_=changed))


def end_attempt(
    connection: Connection,
    study: StudyRecord,
    token: str,
    outcome: AttemptOutcome,
    reason: str | None = None,
    message: str | None = None,
) -> int | None:
    """End an attempt that is open; return the number of its trial, or None where it is not open."""
    ended = (
        update(ATTEMPTS)
        .where(
            ATTEMPTS.c.token == token,
            ATTEMPTS.c.study_id == study.id,
            ATTEMPTS.c.outcome == AttemptOutcome.OPEN,
        )
        .values(outcome=outcome, reason=reason, message=message, ended_at=datetime.now(UTC))
        .returning(ATTEMPTS.c.number)
    )
    number: int | None = connection.scalar(ended)
    return number


def why_not(connection: Connection, study: StudyRecord, token: str, own: AttemptOutcome | None) -> TellOutcome:
    """Say what becomes of a result for an attempt that is not open.

    Args:
        connection: The database.
        study: The study.
        token: The attempt.
        own: How it ended if an earlier try of the same write has reached the database; None for the first try.
    """
    row = connection.execute(select(ATTEMPTS).where(ATTEMPTS.c.token == token)).mappings().one_or_none()
    if row is None or row["study_id"] != study.id:
        _logger.warning("rejected a result of study %s: attempt %r is unknown", study.name, token)
        return TellOutcome.REJECTED
    if row["outcome"] == own:
        return TellOutcome.ACCEPTED
    if row["outcome"] == AttemptOutcome.REPORTED:
        return TellOutcome.REPEATED
    _logger.warning(
        "rejected a late result of study %s, trial %d: attempt %d had been given up (%s)",
        study.name,
        row["number"],
        row["ordinal"],
        row["message"],
    )
    return TellOutcome.REJECTED


def interrupt_attempt(connection: Connection, attempt: RowMapping, message: str) -> None:
    """End an attempt through no fault of its policy: the trial waits again, and has made one attempt less."""
    interrupted = AttemptOutcome.INTERRUPTED
    connection.execute(
        update(ATTEMPTS)
        .where(ATTEMPTS.c.token == attempt["token"])
        .values(outcome=interrupted, reason=interrupted, message=message, ended_at=datetime.now(UTC))
    )
    connection.execute(
        update(TRIALS)
        .where(TRIALS.c.study_id == attempt["study_id"], TRIALS.c.number == attempt["number"])
        .values(state=TrialState.WAITING, attempt_count=TRIALS.c.attempt_count - 1)
    )


def attempt_record(row: RowMapping) -> AttemptRecord:
    """Read a row."""
    return AttemptRecord(
        token=row["token"],
        trial=row["number"],
        ordinal=row["ordinal"],
        worker=row["worker"],
        outcome=AttemptOutcome(row["outcome"]),
        reason=row["reason"],
        message=row["message"],
        started=row["started_at"],
        ended=row["ended_at"],
    )
