"""Rows of trials and attempts: how they are written, and how an attempt ends, on a connection."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, bindparam, func, literal, select, update
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


# Statements of the hot path are built once: building one costs more than running it.
_OF_TRIAL = (TRIALS.c.study_id == bindparam("of_study")) & (TRIALS.c.number == bindparam("of_number"))
_TRIAL = select(TRIALS).where(_OF_TRIAL)
_CHANGING = update(TRIALS).where(_OF_TRIAL)
_ENDING = (
    update(ATTEMPTS)
    .where(
        ATTEMPTS.c.token == bindparam("of_token"),
        ATTEMPTS.c.study_id == bindparam("of_study"),
        ATTEMPTS.c.outcome == literal(AttemptOutcome.OPEN.value),
    )
    .returning(ATTEMPTS.c.number)
)


def inserting(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insertion that may say what becomes of a row that is there; both databases have it in the same words."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


@cache
def _putting(dialect: str, columns: tuple[str, ...]) -> postgresql.Insert | sqlite.Insert:
    statement = inserting(dialect, TRIALS)
    changed = {name: statement.excluded[name] for name in columns if name not in ("study_id", "number")}
    return statement.on_conflict_do_update(index_elements=["study_id", "number"], set_=changed)


@cache
def _opening(dialect: str) -> postgresql.Insert | sqlite.Insert:
    earlier = (
        select(func.coalesce(func.max(ATTEMPTS.c.ordinal), 0) + 1)
        .where(ATTEMPTS.c.study_id == bindparam("of_study"), ATTEMPTS.c.number == bindparam("of_number"))
        .scalar_subquery()
    )
    return inserting(dialect, ATTEMPTS).values(ordinal=earlier).on_conflict_do_nothing()


def put_row(connection: Connection, study: StudyRecord, trial: TrialRecord) -> None:
    """Write a whole trial, whether or not there is one of its number."""
    values = trial_values(study.id, trial)
    connection.execute(_putting(connection.dialect.name, tuple(values)), values)


def open_attempt(connection: Connection, study: StudyRecord, trial: TrialRecord, *, worker: str) -> None:
    """Write that a worker is asked for a trial's scores under the token that the trial bears, once."""
    values = {
        "token": trial.attempt,
        "study_id": study.id,
        "number": trial.number,
        "worker": worker,
        "outcome": AttemptOutcome.OPEN,
        "started_at": datetime.now(UTC),
    }
    connection.execute(_opening(connection.dialect.name), {**values, "of_study": study.id, "of_number": trial.number})


def trial_of(connection: Connection, study: StudyRecord, number: int) -> RowMapping:
    """Read the row of a trial."""
    return connection.execute(_TRIAL, {"of_study": study.id, "of_number": number}).mappings().one()


def change_trial(connection: Connection, study: StudyRecord, number: int, values: Mapping[str, Any]) -> None:
    """Write some columns of a trial."""
    connection.execute(_CHANGING, {**values, "of_study": study.id, "of_number": number})


def end_attempt(
    connection: Connection,
    study: StudyRecord,
    token: str,
    outcome: AttemptOutcome,
    reason: str | None = None,
    message: str | None = None,
) -> int | None:
    """End an attempt that is open; return the number of its trial, or None where it is not open."""
    values = {"outcome": outcome, "reason": reason, "message": message, "ended_at": datetime.now(UTC)}
    number: int | None = connection.scalar(_ENDING, {**values, "of_token": token, "of_study": study.id})
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
