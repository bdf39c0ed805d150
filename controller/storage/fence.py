"""Who may write to a study, on a connection: the lease that keeps others off, and the fence that shuts one out."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from controller.storage.clock import database_time, read_clock
from controller.storage.holder import Holder
from controller.storage.lease import LEASE_S, StudyHeldError
from controller.storage.lease import StudyLostError as StudyLostError
from controller.storage.records import (
    StudyRecord,
)
from controller.storage.schema import STUDIES


def study_row(connection: Connection, condition: Any, *, lock: bool = False) -> RowMapping | None:
    """The row of the one study that meets a condition, kept from others until the transaction ends where asked for."""
    query = select(STUDIES).where(condition)
    return connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()


def lease_values(connection: Connection, holder: Holder) -> dict[str, Any]:
    """Columns of a lease that begins now."""
    return {
        "holder_json": holder.to_json(),
        "held_since": read_clock(connection),
        "lease_expires_at": database_time(connection, LEASE_S),
    }


def refuse_held(connection: Connection, study: StudyRecord, holder: Holder, outlived: datetime | None) -> None:
    """Refuse a study that another controller has.

    Raises:
        StudyHeldError: Its lease has not ended, and its process may be there.
    """
    if study.holder is None or study.holder == holder or study.lease_expires is None:
        return
    if study.lease_expires in (outlived, None) or study.lease_expires <= read_clock(connection):
        return
    if not study.holder.is_gone():
        raise StudyHeldError(study.name, study.holder, study.held_since or study.updated, study.lease_expires)


def pass_fence(connection: Connection, study: StudyRecord) -> None:
    """Renew the lease, and with it lock the study's row for the transaction.

    Raises:
        StudyLostError: Another controller has taken it over.
    """
    renewal = (
        update(STUDIES)
        .where(STUDIES.c.id == study.id, STUDIES.c.fence == study.fence)
        .values(updated_at=datetime.now(UTC), lease_expires_at=database_time(connection, LEASE_S))
    )
    if connection.execute(renewal).rowcount:
        return
    newest = connection.scalar(select(STUDIES.c.fence).where(STUDIES.c.id == study.id))
    raise StudyLostError(
        f"only the newest controller of study {study.name!r} may write to it; this one is number "
        f"{study.fence}, the newest {newest or 'gone with the study'}; stop this one"
    )
