"""The command line as a whole: help, exit codes, messages, and the database."""

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.errors import exit_code_of
from controller.cli.exit_codes import ExitCode
from controller.errors import PreflightError, UsageError
from controller.storage import StudyLostError
from controller.tables.results import ProfileSummary
from evaluators.latency.lookup import MissingEntryError
from evaluators.scores import ScoreError
from workers.export.artifact import ArtifactError

COMMANDS = (
    "validate",
    "schema",
    "profile",
    "calibrate-table",
    "targets",
    "search",
    "serve-local",
    "submit",
    "list",
    "status",
    "logs",
    "stop",
    "resume",
    "front",
    "policy",
    "compare",
    "dashboard",
    "export",
    "register",
    "promote",
    "rollback",
    "recheck",
    "sensitivity",
    "sweep",
    "db",
)

JOB = "name: demo\nmodel: {id: org/model}\ndata: {source: org/data}\n"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def raising(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


def test_help_lists_commands_and_exit_codes():
    done = run("--help")
    assert done.exit_code == 0
    for word in (*COMMANDS, "--version"):
        assert word in done.output
    for code in ExitCode:
        assert re.search(rf"^ *{int(code)}  {code.meaning[:30]}", done.output, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_version_and_schema():
    assert re.fullmatch(r"paretrim \d+\.\d+.*\n", run("--version").output)
    assert json.loads(run("schema").stdout)["$id"].startswith("urn:paretrim:job:")


def test_wrong_arguments_are_usage():
    assert run("serch").exit_code == ExitCode.USAGE
    assert run("validate").exit_code == ExitCode.USAGE
    assert run("front", "demo", "--nope").exit_code == ExitCode.USAGE
    done = run("export", "demo", "--out", "x")
    assert done.exit_code == ExitCode.USAGE
    assert "either --pick or --trial" in done.stderr
    assert run("export", "demo", "--out", "x", "--pick", "a", "--trial", "1").exit_code == ExitCode.USAGE


def test_a_bad_job_is_usage_and_every_problem_is_a_line(job_file):
    Path(job_file).write_text(JOB + "serch: {}\nsearch: {trials: 0}\n")
    for command in ("validate", "search"):
        done = run(command, job_file)
        assert done.exit_code == ExitCode.USAGE
        assert "line 4, column 1: serch: unknown key; did you mean 'search'?" in done.stderr
        assert "line 5, column 10: search.trials: must be greater than or equal to 1; got 0" in done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
    assert "Traceback" in run("--debug", "validate", job_file).stderr


def test_profile_checks_its_options_before_it_loads_anything(tmp_path):
    done = run("profile", "--model", "m", "--out", tmp_path / "t.json", "--batch", 0)
    assert done.exit_code == ExitCode.USAGE
    assert "batch: must be greater than or equal to 1; got 0" in done.stderr
    done = run("profile", "--model", "m", "--out", tmp_path / "t.json", "--target", "toaster")
    assert done.exit_code != 0
    assert "unknown target 'toaster'; supported: cpu-onnxruntime" in done.stderr


def test_profile_says_what_it_wrote(serve, tmp_path):
    summary = ProfileSummary(
        target="cpu-onnxruntime", table=tmp_path / "t.json", entries=90, fingerprint="CPU", spread=0.02, seconds=61
    )
    serve(run_profile=lambda model, target, out, on_progress, minutes: summary)
    done = run("profile", "--model", "m", "--out", tmp_path / "t.json", "--sequence-length", 32)
    assert done.exit_code == 0
    assert "90 operators of cpu-onnxruntime, median spread 2.0 %" in done.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no study 'demo'"), ExitCode.USAGE),
        (PreflightError("no data"), ExitCode.PREFLIGHT),
        (ScoreError("quality must be finite"), ExitCode.PREFLIGHT),
        (ArtifactError("half a file"), ExitCode.NOT_VERIFIED),
        (StudyLostError("another controller has it"), ExitCode.FAILED),
        (MissingEntryError("no entry of 'linear'"), ExitCode.PREFLIGHT),
        (ZeroDivisionError("division by zero"), ExitCode.FAILED),
    ],
)
def test_errors_have_codes_and_no_traceback(serve, error, code):
    serve(load_front=raising(error))
    assert exit_code_of(error) is code
    done = run("front", "demo")
    assert done.exit_code == code
    assert str(error.args[0]) in done.stderr
    assert ("unexpected" in done.stderr) == isinstance(error, ZeroDivisionError)
    assert "Traceback" not in done.stderr
    debugged = run("--debug", "front", "demo")
    assert debugged.exit_code == code
    assert "Traceback" in debugged.stderr


@pytest.fixture
def _heeds_sigint():
    """Shells start what they put into the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_sigint")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("service", "arguments", "kept"),
    [
        ("run_retarget", ["retarget", "demo", "--batch", "8"], "every finished trial is kept"),
        ("run_model_check", ["recheck", "models:/demo/1", "--data", "new.csv"], "every finished trial is kept"),
        ("run_profile", ["profile", "--model", "m", "--out", "t.json"], "no row was measured"),
        ("run_calibration", ["calibrate-table", "--model", "m", "--table", "t.json"], "the table is as it was"),
    ],
)
def test_a_long_command_that_is_told_to_stop_says_how_to_go_on(serve, monkeypatch, service, arguments, kept, number):
    def told(*_arguments, **_options):
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    serve(**{service: told})
    monkeypatch.setattr(sys, "argv", ["paretrim", *arguments])
    done = run(*arguments)
    assert done.exit_code == ExitCode.INTERRUPTED, done.stderr
    assert done.stderr.endswith(f"interrupted; {kept}\nto go on: paretrim {shlex.join(arguments)}\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_any_command_takes_sigterm_as_an_interruption(serve):
    serve(load_front=lambda *_arguments, **_options: os.kill(os.getpid(), signal.SIGTERM))
    done = run("front", "demo")
    assert done.exit_code == ExitCode.INTERRUPTED
    assert done.stderr == "interrupted\n"


def test_a_message_of_an_error_is_cleaned_and_masked(serve):
    serve(load_front=raising(UsageError("no postgresql://me:hunter2@host/db \x1b[31m[red]")))
    done = run("front", "demo")
    assert done.stderr == "no postgresql://me:***@host/db [31m[red]\n"


def test_database_commands(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    done = run("db", "check", "--storage", url)
    assert done.exit_code == ExitCode.USAGE
    assert not (tmp_path / "a.db").exists()
    assert "upgraded from nothing" in run("db", "upgrade", "--storage", url).stdout
    assert "already" in run("db", "upgrade", "--storage", url).stdout
    assert "reachable" in run("db", "check", "--storage", url).stdout
    (tmp_path / "a.db").write_bytes(b"no database" * 1000)
    assert run("db", "check", "--storage", url).exit_code == ExitCode.PREFLIGHT
    assert run("db", "check", "--storage", "nonsense").exit_code == ExitCode.PREFLIGHT
