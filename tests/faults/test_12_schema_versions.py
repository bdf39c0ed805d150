"""Fault 12: a schema older or newer than the program is refused, with the upgrade command."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import text

from controller.storage import StorageError, engine, open_database, upgrade_database


@pytest.fixture
def url(tmp_path: Path) -> str:
    address = f"sqlite:///{tmp_path}/paretrim.db"
    open_database(address).dispose()
    return address


def test_an_older_schema_is_refused_with_the_upgrade_command(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(engine.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0005_next.py").write_text(
        "revision = '0005'\ndown_revision = '0004'\nbranch_labels = None\ndepends_on = None\ndef upgrade():\n    pass\n"
    )
    monkeypatch.setattr(engine, "MIGRATIONS", folder)
    with pytest.raises(StorageError, match=r"has schema 0004, .* needs 0005; .*paretrim db upgrade --storage sqlite"):
        open_database(url)


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    database = open_database(url)
    with database.begin() as connection:
        connection.execute(text(f"UPDATE {engine.VERSION_TABLE} SET version_num = '9999'"))
    database.dispose()
    for refused in (open_database, upgrade_database):
        with pytest.raises(StorageError, match=r"schema 9999, which this program does not know.*paretrim db upgrade"):
            refused(url)
