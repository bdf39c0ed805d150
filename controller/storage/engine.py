"""Opens the database: SQLite or PostgreSQL, with the schema that this program knows."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from controller.errors import PreflightError, UsageError
from controller.problems import mask_passwords
from controller.storage.schema import Base

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "paretrim_schema"
"""Not Alembic's default name: MLflow keeps its own version there."""
READ_ONLY = {"paretrim_read_only": True}
"""Execution option of a connection that only reads, so that it takes no write lock."""


def reading(engine: Engine) -> Connection:
    """Connect for one query: without a lock, and on PostgreSQL without a transaction to begin and end around it."""
    if engine.dialect.name == "postgresql":
        return engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    return engine.connect().execution_options(**READ_ONLY)


MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_MS = 30_000
# Without these a machine that vanishes without a word holds a search up for as long as TCP hopes for it: two hours.
_POSTGRESQL_WAITS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_MIGRATION_LOCK = 0x70617265


class StorageError(PreflightError):
    """The database can't be opened, or has another schema than this program."""


def open_database(url: str) -> Engine:
    """Open the database; an empty one gets its tables.

    Args:
        url: "sqlite:///relative.db", "sqlite:////absolute.db" or "postgresql://user:password@host/name".

    Raises:
        StorageError: Malformed URL, no connection, tables of another program, or another schema version. The
            message shows the URL with its password masked.
    """
    engine = _create_engine(url)
    shown = engine.url.render_as_string(hide_password=True)
    try:
        with engine.begin() as connection:
            _prepare(connection, shown)
    except DBAPIError as error:
        engine.dispose()
        raise StorageError(_unreachable(shown, error)) from None
    except StorageError:
        engine.dispose()
        raise
    return engine


def open_existing(url: str) -> Engine:
    """Open a database for what only reads: a SQLite file that is not there is not made.

    Args:
        url: As of `open_database`.

    Raises:
        UsageError: There is no such file.
        StorageError: As of `open_database`.
    """
    if is_missing_file(url):
        raise UsageError(f"there is no database at {place_of(url)}; a search makes it, or name another: --storage URL")
    return open_database(url)


def is_missing_file(url: str) -> bool:
    """Whether a URL is that of a SQLite file that is not there; opening it would make it."""
    file = _sqlite_file(url)
    return file is not None and not file.exists()


def place_of(url: str) -> str:
    """Return where a database is, for messages: the absolute path of a SQLite file, else its URL without password."""
    file = _sqlite_file(url)
    return mask_passwords(url) if file is None else str(file.absolute())


def _sqlite_file(url: str) -> Path | None:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return None
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    return Path(file) if file and not file.startswith((":memory:", "file:")) else None


def upgrade_database(url: str) -> tuple[str | None, str]:
    """Bring the schema of a database to this program's version.

    Returns:
        The version before (None for an empty database) and the version after.

    Raises:
        StorageError: Malformed URL, no connection, or a version that this program does not know.
    """
    engine = _create_engine(url)
    shown = engine.url.render_as_string(hide_password=True)
    try:
        with engine.begin() as connection:
            _lock(connection)
            before = _current_revision(connection)
            if before is not None and before not in _known_revisions():
                raise StorageError(_newer(shown, before))
            _upgrade(connection)
            return before, _head_revision()
    except DBAPIError as error:
        raise StorageError(_unreachable(shown, error)) from None
    finally:
        engine.dispose()


def _create_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StorageError(
            f"storage must be a database URL such as sqlite:///paretrim.db; got {mask_passwords(url)!r}"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _create_sqlite(parsed, shown)
    if backend != "postgresql":
        raise StorageError(f"storage must be a sqlite or postgresql URL; got {shown}")
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    waits = {name: value for name, value in _POSTGRESQL_WAITS.items() if name not in parsed.query}
    try:
        return create_engine(parsed, pool_pre_ping=True, connect_args=waits)
    except ImportError:
        raise StorageError(f"{shown} needs a driver: pip install 'paretrim[postgresql]'") from None
    except SQLAlchemyError as error:
        raise StorageError(f"can't use the database {shown}: {mask_passwords(str(error))}") from None


def _create_sqlite(url: URL, shown: str) -> Engine:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StorageError(f"a study must outlive its process, so SQLite needs a file; got {shown}; add its path")
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"can't make the folder of {shown}: {error}") from error
    engine = create_engine(url)

    def configure(connection: object, _record: object) -> None:
        # The driver would open transactions by itself, and late: a read that turns into a write then fails as busy.
        connection.isolation_level = None  # type: ignore[attr-defined]
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in (f"busy_timeout={_BUSY_MS}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("paretrim_read_only", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", begin)
    return engine


def _prepare(connection: Connection, shown: str) -> None:
    _lock(connection)
    current = _current_revision(connection)
    if current is None:
        taken = sorted(set(inspect(connection).get_table_names()) & set(Base.metadata.tables))
        if taken:
            raise StorageError(
                f"{shown} has tables of another program ({', '.join(taken)}); give Paretrim a database of its own"
            )
        _upgrade(connection)
    elif current != _head_revision():
        if current not in _known_revisions():
            raise StorageError(_newer(shown, current))
        raise StorageError(
            f"{shown} has schema {current}, and this program needs {_head_revision()}; make a copy of the database, "
            f"then run: paretrim db upgrade --storage {shown}"
        )


def _lock(connection: Connection) -> None:
    """Let one process at a time create or upgrade tables; SQLite has its write lock already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def _newer(shown: str, current: str) -> str:
    return (
        f"{shown} has schema {current}, which this program does not know (it knows up to {_head_revision()}); "
        "install the paretrim release that wrote it; `paretrim db upgrade` only brings older databases forward"
    )


def _unreachable(shown: str, error: DBAPIError) -> str:
    return f"can't use the database {shown}: {mask_passwords(str(error.orig))}; check the URL and that it is up"


def _current_revision(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _script_config() -> "Config":
    from alembic.config import Config

    config = Config()
    # ConfigParser reads a percent sign as the start of a variable.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _known_revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_script_config()).walk_revisions()}


def _head_revision() -> str:
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_script_config()).get_current_head()
    assert head is not None
    return head


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = _script_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
