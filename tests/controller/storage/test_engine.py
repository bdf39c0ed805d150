"""The database is made, recognised, refused and upgraded."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from typer.testing import CliRunner

from controller.cli.app import app
from controller.storage import Repository, StorageError, engine, open_database, upgrade_database
from controller.storage.quality import QualityStore, encode_per_example
from controller.storage.schema import Base
from search_spaces.policy import Choice, Policy

_MOMENT = "2025-01-01 00:00:00.000000"
_OLD_ROWS = (
    "INSERT INTO studies VALUES "
    f"('s', 'digits', 1, 'complete', 'j', '{{}}', '{{}}', 'd', '[]', 1, '{_MOMENT}', '{_MOMENT}')",
    "INSERT INTO trials (study_id, number, role, name, policy_digest, policy_json, state, attempt_count, quality, "
    "latency_ms, size_bytes) VALUES ('s', 0, 'baseline', 'dense', 'd', "
    f"""'{Policy({"layer.0": Choice(4, "w8a8")}).to_json()}', 'complete', 1, 0.75, 1.5, 100)""",
    "INSERT INTO attempts (token, study_id, number, ordinal, worker, outcome, started_at) VALUES "
    f"('t', 's', 0, 1, 'slot 0', 'reported', '{_MOMENT}')",
    f"INSERT INTO quality_scores VALUES ('e', 'd', 'search', 0, 'accuracy', 0.75, 0.1, 2.5, PACKED, '{_MOMENT}')",
)


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/deep/paretrim.db"


def test_an_empty_database_gets_the_tables_of_the_models(storage_url: str) -> None:
    database = open_database(storage_url)
    with database.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": engine.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, Base.metadata) == []
        assert set(inspect(connection).get_table_names()) == {*Base.metadata.tables, engine.VERSION_TABLE}
    open_database(storage_url).dispose()
    database.dispose()


def test_sqlite_is_set_up_for_many_processes(tmp_path: Path) -> None:
    database = open_database(url_of(tmp_path))
    with database.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_writer_takes_the_lock_at_once_and_a_reader_takes_none(tmp_path: Path) -> None:
    database = open_database(url_of(tmp_path))
    impatient = sqlite3.connect(f"{tmp_path}/deep/paretrim.db", timeout=0)
    with database.connect().execution_options(**engine.READ_ONLY) as reader:
        reader.execute(text("SELECT count(*) FROM studies"))
        impatient.execute("BEGIN IMMEDIATE")
        impatient.rollback()
    with database.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        impatient.execute("BEGIN IMMEDIATE")
    impatient.close()
    database.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("mysql://user:secret@host/name", r"sqlite or postgresql URL; got mysql://user:\*\*\*@host/name"),
        ("://user:secret@host", r"must be a database URL such as .*; got '://user:\*\*\*@host'"),
    ],
)
def test_other_urls_are_refused_without_the_password(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"can't use the database .*unable to open database file"):
        open_database(f"sqlite:///{tmp_path}")


def test_tables_of_another_program_are_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE trials (id INTEGER)")
    other.close()
    with pytest.raises(
        StorageError, match=r"tables of another program \(trials\); give Paretrim a database of its own"
    ):
        open_database(f"sqlite:///{tmp_path}/other.db")


def test_an_upgrade_of_this_release_changes_nothing(storage_url: str) -> None:
    assert upgrade_database(storage_url) == (None, "0004")
    assert upgrade_database(storage_url) == ("0004", "0004")


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows one more migration than this one."""
    folder = tmp_path / "migrations"
    shutil.copytree(engine.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0005_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        "revision = '0005'\ndown_revision = '0004'\nbranch_labels = None\ndepends_on = None\n"
        "def upgrade():\n    op.add_column('studies', sa.Column('lease_holder', sa.Text(), nullable=True))\n"
    )
    monkeypatch.setattr(engine, "MIGRATIONS", folder)


def test_upgrade_brings_an_older_database_forward(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(tmp_path)
    open_database(url).dispose()
    request.getfixturevalue("next_release")
    assert upgrade_database(url) == ("0004", "0005")
    database = open_database(url)
    assert "lease_holder" in {column["name"] for column in inspect(database).get_columns("studies")}
    database.dispose()


def test_the_first_schema_is_brought_forward_with_its_rows(storage_url: str) -> None:
    """Scores of old studies were all made on whole splits."""
    before = {"studies": 0, "trials": 0, "attempts": 0}
    script = engine._script_config()
    old = engine._create_engine(storage_url)
    bits = encode_per_example((1.0, 0.0)).hex()
    packed = f"X'{bits}'" if old.dialect.name == "sqlite" else f"decode('{bits}', 'hex')"
    with old.begin() as connection:
        script.attributes["connection"] = connection
        command.upgrade(script, "0001")
        for statement in _OLD_ROWS:
            connection.exec_driver_sql(statement.replace("PACKED", packed))
        before = {table: connection.execute(text(f"SELECT * FROM {table}")).mappings().all() for table in before}
    old.dispose()
    with pytest.raises(StorageError, match=r"has schema 0001, and this program needs 0004"):
        open_database(storage_url)
    assert upgrade_database(storage_url) == ("0001", "0004")
    database = open_database(storage_url)
    with database.connect() as connection:
        for table, rows in before.items():
            now = connection.execute(text(f"SELECT * FROM {table}")).mappings().all()
            assert [{name: row[name] for name in rows[0]} for row in now] == [dict(row) for row in rows]
    (trial,) = Repository(database).trials("s")
    assert (trial.rung, trial.share, trial.quality) == (None, 1.0, 0.75)
    found = QualityStore(database, "e").get("d", "search")
    assert found is not None
    assert (found.value, found.per_example, found.rung, found.share) == (0.75, (1.0, 0.0), None, 1.0)
    assert QualityStore(database, "e").all_of("search") == {"d": found}
    database.dispose()


@pytest.mark.parametrize(
    "words",
    [
        ("front", "nosuch"),
        ("policy", "nosuch", "--trial", "1"),
        ("explain", "nosuch", "--trial", "1"),
        ("compare", "nosuch", "other"),
        ("export", "nosuch", "--pick", "knee", "--out", "best"),
        ("retarget", "nosuch", "--threads", "2"),
        ("scale", "nosuch", "--parallel", "2"),
        ("dashboard", "nosuch"),
    ],
)
def test_a_command_on_a_study_makes_no_database(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARETRIM_STORAGE", raising=False)
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert f"there is no database at {tmp_path}/.paretrim/paretrim.db; a search makes it" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study_is_said_with_the_path_of_the_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PARETRIM_STORAGE", raising=False)
    open_database("sqlite:///.paretrim/paretrim.db").dispose()
    done = CliRunner().invoke(app, ["front", "nosuch"], env={"COLUMNS": "500"})
    assert f"no study 'nosuch' in the database {tmp_path}/.paretrim/paretrim.db; it has: none" in done.stderr
