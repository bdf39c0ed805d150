"""Outlasts a database that goes away: what was asked of it is asked again until it answers."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from controller.problems import mask_passwords

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_OUTAGE_CLASSES = frozenset({"08", "40", "53", "57", "58"})
"""SQLSTATE classes: connection, rollback, resources (the disk too), operator (shutdown, start), system."""
_OUTAGE_STATES = frozenset({"25006", "55P03"})
"""Read-only, as a standby is until it was promoted; a lock that was not to be had."""
_SQLITE_OUTAGES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


class DatabaseGoneError(RuntimeError):
    """The database has not come back; everything that was told before is in it."""


def is_outage(error: DBAPIError) -> bool:
    """Tell whether the database could not be used just now; asking for something wrong is no outage."""
    if error.connection_invalidated:
        return True
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_OUTAGES
    state = getattr(cause, "sqlstate", None)
    if state:
        return state[:2] in _OUTAGE_CLASSES or state in _OUTAGE_STATES
    return isinstance(error, (OperationalError, InterfaceError))


class Patience:
    """Repeats what a database did not answer, at growing intervals; one thread uses it, others look on.

    Args:
        quiet_s: Seconds of an outage that nobody is told of.
        first_wait_s: Seconds before the second attempt; doubles each time.
        longest_wait_s: Largest interval.
        give_up_s: Seconds after which an outage ends the search.
    """

    def __init__(
        self,
        *,
        quiet_s: float = 5.0,
        first_wait_s: float = 0.1,
        longest_wait_s: float = 5.0,
        give_up_s: float = 3600.0,
    ) -> None:
        self._quiet_s = quiet_s
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._give_up_s = give_up_s
        self._down_since: float | None = None
        self._cause = ""
        self._deadline: float | None = None
        self._hurry = threading.Event()

    @property
    def trouble(self) -> str | None:
        """What the search waits for, in one line; None while the database answers, or has been away for a moment."""
        since = self._down_since
        if since is None or time.monotonic() - since < self._quiet_s:
            return None
        return f"waiting for the database, which has not answered for {time.monotonic() - since:.0f} s: {self._cause}"

    def limit(self, seconds: float) -> None:
        """Give up an outage after so many seconds from now, whenever it began."""
        self._deadline = time.monotonic() + seconds
        self._hurry.set()

    def run(self, action: Callable[[bool], T]) -> T:
        """Do something in the database, again and again if need be.

        Args:
            action: Gets whether it was tried before: then its effects may be there already, as a connection that is
                lost in a commit does not tell.

        Raises:
            DatabaseGoneError: The database did not come back in time.
            DBAPIError: The database answered with another error.
        """
        retried, wait_s = False, self._first_wait_s
        while True:
            try:
                result = action(retried)
            except DBAPIError as error:
                if not is_outage(error):
                    raise
                self._note(error)
            else:
                self._recovered()
                return result
            self._hurry.wait(wait_s)
            retried, wait_s = True, min(2 * wait_s, self._longest_wait_s)
            if self._hurry.is_set():
                # Told to end soon: no more long waits.
                self._hurry.clear()
                wait_s = self._first_wait_s

    def _note(self, error: DBAPIError) -> None:
        now = time.monotonic()
        lines = mask_passwords(str(error.orig)).strip().splitlines()
        self._cause = lines[0] if lines else type(error.orig).__name__
        if self._down_since is None:
            self._down_since = now
            _logger.warning("the database does not answer, and is asked again: %s", self._cause)
        give_up = self._down_since + self._give_up_s
        if now >= (give_up if self._deadline is None else min(give_up, self._deadline)):
            raise DatabaseGoneError(
                f"the database must come back for the search to go on; it has not answered for "
                f"{now - self._down_since:.0f} s: {self._cause}; nothing that was recorded is lost: once it is up, run "
                "the search again"
            ) from error

    def _recovered(self) -> None:
        if self._down_since is not None:
            _logger.warning("the database answers again, after %.1f s", time.monotonic() - self._down_since)
            self._down_since = None
