"""The commands that measure, with services that only say what they were asked for."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import controller
from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.tables.calibration import CalibratedModel, CalibrationSummary
from controller.tables.results import ProfileSummary

JOB = (
    "name: demo\n"
    "model: {id: org/model, task: image-classification}\n"
    "data: {source: org/data}\n"
    "target: {batch: 4, threads: 1}\n"
)
SUMMARY = ProfileSummary(
    target="cpu-onnxruntime",
    table=Path("t.json"),
    entries=90,
    added=40,
    needed=200,
    fingerprint="CPU",
    spread=0.02,
    correction_models=12,
    correction_error_pct=1.25,
    correction_max_error_pct=8.2,
    notes=("the machine is noisy: 30 of 90 operators spread",),
    seconds=61,
)
CALIBRATION = CalibrationSummary(
    table=Path("t.json"),
    batch=1,
    sequence_length=32,
    scale=1.25,
    format_scales={"w8a8": 1.2},
    other_scale=1.1,
    attention_scale=1.4,
    operator_overhead_ms=0.0,
    pair_overhead_ms=0.018,
    overhead_ms=0.3,
    models=(
        CalibratedModel(name="dense", predicted_ms=10.0, measured_ms=9.5, error_pct=5.26, left_out=False),
        CalibratedModel(name="mixed 1", predicted_ms=4.0, measured_ms=4.1, error_pct=2.44, left_out=True),
    ),
    median_error_pct=2.44,
    max_error_pct=2.44,
    seconds=80,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """What the services were asked for: name, arguments, options."""
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def answer(name: str, result: Any) -> Callable[..., Any]:
        def serve(*arguments: Any, **options: Any) -> Any:
            calls.append((name, arguments, options))
            return result

        return serve

    service = types.ModuleType("controller.operations")
    for name, result in (("run_profile", SUMMARY), ("run_space_profile", SUMMARY), ("run_calibration", CALIBRATION)):
        setattr(service, name, answer(name, result))
    monkeypatch.setitem(sys.modules, "controller.operations", service)
    monkeypatch.setattr(controller, "operations", service, raising=False)
    return calls


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_a_profile_of_a_space_takes_the_job_and_what_the_command_line_changes(asked, job: Path) -> None:
    done = run("profile", "--space", job, "--model", "other", "--threads", 2, "--budget-minutes", 5)
    assert done.exit_code == 0
    ((name, (spec, _), options),) = asked
    assert name == "run_space_profile"
    assert (spec.model.id, spec.model.task) == ("other", "image-classification")
    assert (spec.target.batch, spec.target.threads, spec.target.name) == (4, 2, "cpu-onnxruntime")
    assert options == {"out": None, "minutes": 5}


@pytest.mark.parametrize("command", [("profile",), ("calibrate-table", "--table", "t.json")])
@pytest.mark.parametrize(
    ("words", "model"),
    [
        ((), ("org/model", "abc", "image-classification")),
        (("--revision", "def"), ("org/model", "def", "image-classification")),
        (("--task", "text-classification"), ("org/model", "abc", "text-classification")),
        (("--model", "other"), ("other", None, "image-classification")),
        (("--model", "other", "--revision", "def"), ("other", "def", "image-classification")),
    ],
)
def test_what_is_said_of_the_model_beside_a_job_holds(asked, tmp_path: Path, command, words, model) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("org/model,", "org/model, revision: abc,"))
    done = run(*command, "--space", path, *words)
    assert done.exit_code == 0, done.stderr
    ((_, arguments, options),) = asked
    spec = options.get("job") or arguments[0]
    assert (spec.model.id, spec.model.revision, spec.model.task) == model


def test_a_revision_is_checked_beside_a_job_too(asked, job: Path) -> None:
    done = run("profile", "--space", job, "--revision", "a/b")
    assert done.exit_code == ExitCode.USAGE
    assert "letters, digits, dots" in done.stderr
    assert asked == []


def test_a_profile_of_a_model_takes_a_file(asked, tmp_path: Path) -> None:
    done = run("profile", "--model", "m", "--sequence-length", 32, "--out", tmp_path / "t.json")
    assert done.exit_code == 0
    ((name, (model, target, out, _), options),) = asked
    assert (name, model.id, target.sequence_length, target.batch) == ("run_profile", "m", 32, 1)
    assert (out, options) == (tmp_path / "t.json", {"minutes": None})


def test_a_profile_says_what_it_measured_and_how_wrong_predictions_are(asked, job: Path) -> None:
    text = run("profile", "--space", job).stdout
    assert "90 operators of cpu-onnxruntime, median spread 2.0 %" in text
    assert "40 of them measured now for the 200 asked for" in text
    assert "correction fitted on 12 whole models; error on models left out: 1.2 % (median), 8.2 % (largest)" in text
    assert "note: the machine is noisy" in text


@pytest.mark.parametrize("words", [(), ("--model", "m"), ("--out", "t.json")])
def test_a_profile_without_job_or_model_and_file_is_refused(asked, words: tuple[str, ...]) -> None:
    done = run("profile", *words)
    assert done.exit_code == ExitCode.USAGE
    assert "--space JOB, or --model and --out" in done.stderr
    assert asked == []


def test_options_are_checked_before_anything_heavy(asked, job: Path) -> None:
    assert run("profile", "--space", job, "--target", "toaster").exit_code != 0
    done = run("profile", "--space", job, "--threads", 0)
    assert done.exit_code == ExitCode.USAGE
    assert "threads" in done.stderr
    assert asked == []


@pytest.mark.parametrize("minutes", [0, -1, "nan"])
def test_a_time_of_nothing_is_refused(asked, job: Path, minutes: object) -> None:
    for command in (("profile",), ("calibrate-table", "--table", "t.json")):
        done = run(*command, "--space", job, "--budget-minutes", minutes)
        assert done.exit_code == ExitCode.USAGE
        assert "minutes are above 0; got" in done.stderr
    assert asked == []


def test_a_calibration_takes_a_job_or_a_model(asked, job: Path) -> None:
    assert run("calibrate-table", "--table", "t.json", "--space", job).exit_code == 0
    words = ("--model", "m", "--sequence-length", 8, "--budget-minutes", 2)
    assert run("calibrate-table", "--table", "t.json", *words).exit_code == 0
    (_, (first, _), by_job), (_, (second, _), by_model) = asked
    assert first == second == Path("t.json")
    assert by_job["job"].name == "demo"
    assert by_job["model"] is None
    assert (by_model["job"], by_model["model"].id) == (None, "m")
    assert (by_model["batch"], by_model["sequence_length"]) == (1, 8)
    assert (by_job["minutes"], by_model["minutes"]) == (None, 2)
    done = run("calibrate-table", "--table", "t.json")
    assert done.exit_code == ExitCode.USAGE
    assert "--model or --space JOB" in done.stderr


def test_a_calibration_shows_every_model_and_the_error(asked, job: Path) -> None:
    text = run("calibrate-table", "--table", "t.json", "--space", job).stdout
    assert "whole models, batch 1, 32 tokens" in text
    assert "seen by the fit" in text
    assert "operator times are multiplied by 1.250, products of w8a8 by 1.200" in text
    assert "operators without weights by 1.100, operators without weights of attention by 1.400" in text
    assert "error on models left out of the fit: median 2.4 %, largest 2.4 %" in text
    content = json.loads(run("calibrate-table", "--table", "t.json", "--space", job, "--json").stdout)
    assert content["pair_overhead_ms"] == 0.018
    assert [model["left_out"] for model in content["models"]] == [False, True]
