"""Files that commands write tables to, and that messages name: never one of the package, nor a foreign one."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_searches import make_job
from typer.testing import CliRunner

from controller.cli.app import app
from controller.preparation import describe, price_by_table
from evaluators.latency import shipped
from evaluators.latency.lookup import MissingEntryError
from evaluators.latency.shipped import check_writable
from evaluators.latency.table import load_table

if TYPE_CHECKING:
    from conftest import TinyJob


def lacking(tiny: "TinyJob", path: Path, **mark: str) -> Path:
    """The table of a tiny model without its products of int8."""
    table = load_table(tiny.table)
    rows = tuple(entry for entry in table.entries if entry.format != "w8a8")
    fingerprint = table.fingerprint.model_copy(update=mark)
    table.model_copy(update={"entries": rows, "fingerprint": fingerprint}).save(path)
    return path


def remedy(tiny: "TinyJob", table: Path, folder: Path) -> list[str]:
    """The words of the command that the error of a missing operator names."""
    target = {"table": str(table), "sequence_length": tiny.sequence_length, "allow_foreign_table": True}
    job = make_job(tiny, folder, 4, target=target)
    with pytest.raises(MissingEntryError, match="the table lacks linear w8a8") as caught:
        price_by_table(job, describe(job))
    return command_in(str(caught.value))


def run(*words: str) -> tuple[int, str]:
    """Exit code of a command, and what it printed, on one line."""
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "1000"})
    return done.exit_code, (done.stdout + done.stderr).replace("\n", " ")


def command_in(text: str) -> list[str]:
    """The words of the command that a message says to measure with."""
    return shlex.split(text.split("measure with: ")[1], comments=True)


def write_job(tiny: "TinyJob", folder: Path, **target: object) -> str:
    # One policy, for which no correction is fitted.
    space = {"keep": [1.0], "formats": ["w8a8"]}
    job = make_job(tiny, folder, 4, space=space, target={"sequence_length": tiny.sequence_length, **target})
    (folder / "job.json").write_text(json.dumps(job.model_dump(mode="json", exclude_unset=True)))
    return str(folder / "job.json")


def test_the_table_of_a_job_file_is_completed_by_that_file(tiny_text: "TinyJob", tmp_path: Path) -> None:
    table = lacking(tiny_text, tmp_path / "mine.json")
    job = write_job(tiny_text, tmp_path, table=table.name)
    code, text = run("validate", job)
    assert code == 3
    assert command_in(text) == ["paretrim", "profile", "--space", job]
    assert command_in(run("table", "check", str(table), "--space", job)[1]) == ["paretrim", "profile", "--space", job]
    code, text = run("profile", "--space", job, "--budget-minutes", "0.01")
    assert code == 0, text
    code, text = run("validate", job)
    assert code == 0, text


def test_another_table_than_that_of_the_job_file_is_named(tiny_text: "TinyJob", tmp_path: Path) -> None:
    other = lacking(tiny_text, tmp_path / "other.json")
    for named in (str(tiny_text.table), None):
        job = write_job(tiny_text, tmp_path, **{} if named is None else {"table": named})
        text = run("table", "check", str(other), "--space", job)[1]
        assert command_in(text) == ["paretrim", "profile", "--space", job, "--out", str(other)]


def test_what_the_command_line_changes_of_a_job_file_is_named(tiny_text: "TinyJob", tmp_path: Path) -> None:
    other = lacking(tiny_text, tmp_path / "other.json")
    job = write_job(tiny_text, tmp_path, table="other.json")
    text = run("calibrate-table", "--table", str(other), "--space", job, "--batch", "2")[1]
    assert command_in(text) == ["paretrim", "profile", "--space", job, "--batch", "2"]


def test_a_foreign_table_of_a_job_file_gets_a_new_one(tiny_text: "TinyJob", tmp_path: Path) -> None:
    lacking(tiny_text, tmp_path / "board.json", device="Board X")
    job = write_job(tiny_text, tmp_path, table="board.json")
    text = run("validate", job, "--allow-foreign-table")[1]
    assert command_in(text) == ["paretrim", "profile", "--space", job, "--out", "board-measured.json"]


def test_a_table_of_this_machine_is_added_to(tiny_text: "TinyJob", tmp_path: Path) -> None:
    path = lacking(tiny_text, tmp_path / "mine.json")
    assert remedy(tiny_text, path, tmp_path)[-2:] == ["--out", str(path)]


def test_a_table_of_another_machine_is_not(tiny_text: "TinyJob", tmp_path: Path) -> None:
    path = lacking(tiny_text, tmp_path / "board.json", device="Board X")
    assert remedy(tiny_text, path, tmp_path)[-2:] == ["--out", "board-measured.json"]


def test_a_table_of_the_package_is_not(tiny_text: "TinyJob", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tables").mkdir()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "tables")
    lacking(tiny_text, tmp_path / "tables" / "small-1t.json")
    words = remedy(tiny_text, Path("shipped:small-1t"), tmp_path)
    assert words[-2:] == ["--out", "small-1t-measured.json"]
    check_writable(Path(words[-1]))


@pytest.mark.parametrize("out", ["shipped:mine", str(shipped.FOLDER / "mine.json")])
@pytest.mark.parametrize("command", ["merge", "import"])
def test_nothing_is_written_among_the_tables_of_the_package(
    command: str, out: str, tiny_text: "TinyJob", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mapping = "target: a\ndevice: b\nruntime: c\nthreads: 1\ntime_unit: s\ntime_unit_basis: stated\n"
    mapping += (
        "source: {name: them, licence: MIT}\noperators: [{kind: quantize, time: t, axes: {tokens: n, features: 1}}]"
    )
    Path("map.yaml").write_text(mapping)
    Path("times.csv").write_text("n,t\n8,1\n")
    table = str(tiny_text.table)
    words = {"merge": [table, table], "import": ["times.csv", "--mapping", "map.yaml"]}[command]
    done = CliRunner().invoke(app, ["table", command, *words, "-o", out], env={"COLUMNS": "300"})
    assert done.exit_code == 3
    assert "tables that come with Paretrim stay as they are" in done.stderr
    assert not Path(out).exists()
