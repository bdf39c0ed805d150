"""Several writes in one transaction, as a commit takes longer than what it commits."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from controller.storage.patience import Patience

T = TypeVar("T")
Write = Callable[[Connection, bool], T]
"""A write; gets the connection, and whether it was tried before without hearing what became of it."""


class Batch:
    """One transaction of several writes. Where the database goes away, all of them are done again.

    Args:
        engine: The database.
        patience: How an outage is borne.
        enter: What each transaction begins with.
    """

    def __init__(self, engine: Engine, patience: Patience, enter: Callable[[Connection], None]) -> None:
        self._engine = engine
        self._patience = patience
        self._enter = enter
        self._connection: Connection | None = None
        self._done: list[Write[Any]] = []

    def write(self, work: Write[T]) -> T:
        """Do one more write."""
        result = self._patience.run(lambda retried: self._closing(lambda: work(self._connected(), retried)))
        self._done.append(work)
        return result

    def commit(self) -> None:
        """Make all writes last."""
        if self._done:
            self._patience.run(lambda _retried: self._closing(lambda: self._connected().commit()))
        self.close()

    def close(self) -> None:
        """Undo what was not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> Connection:
        """Return the connection; one that is new has all earlier writes done again."""
        if self._connection is None:
            self._connection = self._engine.connect()
            self._connection.begin()
            self._enter(self._connection)
            for work in self._done:
                work(self._connection, True)
        return self._connection

    def _closing(self, action: Callable[[], T]) -> T:
        """Do something, and drop the connection if that fails."""
        try:
            return action()
        except DBAPIError:
            self.close()
            raise
