"""The database's clock, by which leases end: the clocks of machines differ, and jump."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, select, type_coerce

from controller.storage.schema import UtcDateTime

_TICKS = "%Y-%m-%d %H:%M:%f000"
"""SQLite counts milliseconds, and stored moments have microseconds."""


def database_time(connection: Connection, after_s: float = 0.0) -> ColumnElement[datetime]:
    """Return the expression of the moment some seconds from now (UTC)."""
    moment: ColumnElement[datetime]
    if connection.dialect.name == "postgresql":
        # Not now(): that stands still within a transaction, which may have waited for a lock.
        moment = func.timezone("UTC", func.clock_timestamp()) + timedelta(seconds=after_s)
    else:
        moment = func.strftime(_TICKS, "now", f"{after_s:+.3f} seconds")
    return type_coerce(moment, UtcDateTime())


def read_clock(connection: Connection) -> datetime:
    """Return the moment that the database's clock shows (UTC)."""
    now = connection.scalar(select(database_time(connection)))
    assert isinstance(now, datetime)
    return now
