"""The outbox in the database: messages to MLflow outlive the program and a server that is down."""

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from controller.storage.engine import READ_ONLY
from controller.storage.patience import is_outage
from controller.storage.records import canonical_json
from controller.storage.schema import OutboxRow
from controller.tracking.outbox import OutboxItem


class DatabaseOutbox:
    """The messages of one study. Threads and processes may share it.

    Args:
        engine: The database.
        study_id: The study that messages belong to.
    """

    def __init__(self, engine: Engine, study_id: str) -> None:
        self._engine = engine
        self._study_id = study_id
        self._lock = threading.Lock()
        self._unwritten: list[dict[str, Any]] = []

    def put(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Append a message; it is durable when this returns, or as soon as a database that is away is back.

        Raises:
            ValueError: The payload holds NaN or infinity.
        """
        text = canonical_json(dict(payload))
        row = {"study_id": self._study_id, "kind": kind, "payload_json": text, "created_at": datetime.now(UTC)}
        with self._lock:
            self._unwritten.append(row)
            try:
                self._write()
            except DBAPIError as error:
                if not is_outage(error):
                    raise

    def _write(self) -> None:
        """Write what has not been written, in its order."""
        if not self._unwritten:
            return
        with self._engine.begin() as connection:
            connection.execute(insert(OutboxRow), self._unwritten)
        self._unwritten = []

    def pending(self, limit: int) -> Sequence[OutboxItem]:
        """Return the oldest messages that are not marked as sent, at most `limit`."""
        with self._lock:
            self._write()
        query = (
            select(OutboxRow)
            .where(OutboxRow.study_id == self._study_id, OutboxRow.sent_at.is_(None))
            .order_by(OutboxRow.id)
            .limit(limit)
        )
        with Session(self._engine.execution_options(**READ_ONLY)) as session:
            rows = session.scalars(query)
            return [OutboxItem(id=row.id, kind=row.kind, payload=json.loads(row.payload_json)) for row in rows]

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Mark messages as sent; ids already marked are no error."""
        query = (
            update(OutboxRow)
            .where(OutboxRow.study_id == self._study_id, OutboxRow.id.in_(ids), OutboxRow.sent_at.is_(None))
            .values(sent_at=datetime.now(UTC))
        )
        with Session(self._engine) as session, session.begin():
            session.execute(query)
