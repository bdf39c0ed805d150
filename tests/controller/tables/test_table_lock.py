"""A table is measured by one process at a time: real processes that meet at one file, and that are told to stop."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.exit_codes import ExitCode
from controller.errors import HeldError, PreflightError
from controller.job_file import load_job
from controller.preparation import describe
from controller.tables.profiling import run_space_profile
from controller.tables.table_lock import lock_file, measuring_alone
from evaluators.latency.table import load_table

MINUTES = 0.01
PROGRAM = str(Path(sys.executable).with_name("paretrim"))
HOLDER = """
import sys, time
from pathlib import Path
from controller.tables.table_lock import measuring_alone
with measuring_alone(Path(sys.argv[1]), waits=False, on_wait=print):
    print("measures", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(table: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that measures a table until it gets a line."""
    command = [sys.executable, "-c", HOLDER, str(table)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measures\n"
        yield process
        if process.poll() is None:
            process.communicate("\n")


@pytest.fixture
def job(tiny_text: Any, tmp_path: Path) -> Path:
    """A job whose table is measured by the search itself."""
    content = {
        "name": "tiny",
        "model": {"id": tiny_text.model.id, "task": tiny_text.model.task},
        "data": tiny_text.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.5], "formats": ["fp32"]},
        "target": {"name": "cpu-torch", "sequence_length": tiny_text.sequence_length},
        "search": {"sampler": "random", "trials": 1, "parallel": 1},
        "storage": f"sqlite:///{tmp_path}/paretrim.db",
        "mlflow": {"enabled": False},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start(*words: object, folder: Path) -> subprocess.Popen[str]:
    """A command of its own, with a folder for scratch; Ray's sockets need the short path of the usual one."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    own = {} if words[0] == "search" else {"TMPDIR": str(scratch)}
    return subprocess.Popen(
        [PROGRAM, *map(str, words)],
        cwd=folder,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"{text!r} never came: {''.join(seen)}")


def test_a_second_process_is_refused_with_the_name_of_file_and_process(tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    with held(table) as other:
        refused = rf"process {other.pid} \(since .*\) measures {table} now; wait until"
        with pytest.raises(HeldError, match=refused), measuring_alone(table, waits=False, on_wait=print):
            pytest.fail("both measure")
    assert not list(tmp_path.iterdir())


def test_who_may_wait_measures_when_the_other_has_ended(tmp_path: Path) -> None:
    table, said = tmp_path / "t.json", []
    with held(table) as other:

        def on_wait(words: str) -> None:
            said.append(words)
            other.communicate("\n")

        with measuring_alone(table, waits=True, on_wait=on_wait):
            assert lock_file(table).exists()
    assert said[0].startswith(f"waiting for process {other.pid} (since ")
    assert not list(tmp_path.iterdir())


def test_a_killed_process_holds_no_table(tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    with held(table) as other:
        other.kill()
        other.wait()
        assert lock_file(table).exists()
        with measuring_alone(table, waits=False, on_wait=print):
            assert json.loads(lock_file(table).read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_holder_that_does_not_say_who_it_is_is_another_process(tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    with held(table):
        lock_file(table).write_text("{")
        refused = "another process measures"
        with pytest.raises(HeldError, match=refused), measuring_alone(table, waits=False, on_wait=print):
            pytest.fail("both measure")


def test_a_lock_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    lock_file(table).mkdir()
    refused = r"can't be locked \(Is a directory\); name a file in another folder"
    with pytest.raises(PreflightError, match=refused), measuring_alone(table, waits=False, on_wait=print):
        pytest.fail("measures without a lock")


def test_commands_that_measure_a_table_in_use_end_with_a_code_of_their_own(tiny_text: Any, tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    table.write_bytes(tiny_text.table.read_bytes())
    written = table.read_bytes()
    model = ("--model", tiny_text.model.id, "--sequence-length", tiny_text.sequence_length)
    with held(table) as other:
        for words in (("profile", *model, "--out", table), ("calibrate-table", *model, "--table", table)):
            process = start(*words, folder=tmp_path)
            _, errors = process.communicate(timeout=120)
            assert process.returncode == ExitCode.HELD, errors
            assert f"process {other.pid} (since " in errors
            assert str(table) in errors
    assert table.read_bytes() == written


@pytest.mark.slow
def test_a_search_waits_for_who_measures_its_table_and_takes_it(job: Path, tmp_path: Path) -> None:
    spec = load_job(job)
    table = run_space_profile(spec, lambda progress: None, minutes=MINUTES).table
    before = load_table(table)
    with held(table) as other:
        search = start("search", job, "--json", folder=tmp_path)
        read_until(search, f"waiting for process {other.pid} (since ")
        other.communicate("\n")
        _, errors = search.communicate(timeout=200)
        assert search.returncode == 0, errors
    after = load_table(table)
    assert after.entries == before.entries
    # The profile had no time for all whole models; the search has.
    assert before.corrections[0].is_unfinished
    assert not after.corrections[0].is_unfinished


def test_a_search_that_waits_is_told_to_stop(job: Path, tmp_path: Path) -> None:
    table = describe(load_job(job)).table
    table.parent.mkdir(parents=True)
    with held(table) as other:
        search = start("search", job, folder=tmp_path)
        read_until(search, f"waiting for process {other.pid} (since ")
        search.send_signal(signal.SIGTERM)
        _, errors = search.communicate(timeout=60)
        assert search.returncode == ExitCode.INTERRUPTED, errors
        assert f"to go on: paretrim search {job}" in errors
        assert lock_file(table).exists()


@pytest.mark.slow
def test_a_terminated_profile_says_how_to_go_on_and_leaves_no_scratch(job: Path, tmp_path: Path) -> None:
    words = ("profile", "--space", job, "--out", tmp_path / "t.json", "--budget-minutes", MINUTES)
    process = start(*words, folder=tmp_path)
    read_until(process, "timing whole models")
    scratch = tmp_path / "scratch"
    assert list(scratch.glob("paretrim-correction-*"))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    rows = len(load_table(tmp_path / "t.json").entries)
    assert f"interrupted; {rows} rows of this run are kept, {rows} in all; rows are saved in groups of up to" in errors
    assert f"to go on: {shlex.join(['paretrim', *map(str, words)])}" in errors
    assert not list(scratch.glob("paretrim-correction-*"))
    assert not lock_file(tmp_path / "t.json").exists()
    before = load_table(tmp_path / "t.json")
    again = start(*words, "--json", folder=tmp_path)
    report, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert json.loads(report)["added"] == 0
    after = load_table(tmp_path / "t.json")
    assert after.entries == before.entries
    assert len(after.corrections) == 1
    interrupted = start("calibrate-table", "--table", tmp_path / "t.json", "--space", job, folder=tmp_path)
    read_until(interrupted, "exporting models for the correction")
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate(timeout=60)
    assert interrupted.returncode == ExitCode.INTERRUPTED, errors
    assert "interrupted; the table is as it was" in errors
    assert "to go on: paretrim calibrate-table --table" in errors
    assert not list(scratch.glob("paretrim-correction-*"))
    assert load_table(tmp_path / "t.json") == after
