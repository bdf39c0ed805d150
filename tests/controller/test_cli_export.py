"""What `paretrim export` is told and prints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.results import ExitSummary, ExportSummary, SearchResult
from workers.export.artifact import ArtifactError

REPORT = ExportSummary(
    study="demo",
    trial=7,
    policy_digest="0" * 16,
    explanation="trial 7: the fastest of 3",
    artifact=Path("out"),
    metric="accuracy",
    searched_quality=0.9,
    exported_quality=0.9,
    dense_quality=0.91,
    max_logits_difference=1e-4,
    predicted_latency_ms=4.1,
    measured_latency_ms=4.2,
    dense_latency_ms=10.0,
    predicted_size_bytes=13_000_000,
    measured_size_bytes=13_100_000,
    dense_size_bytes=50_000_000,
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_an_export_shows_the_interval_of_the_prediction_where_there_is_one(serve):
    words = ("export", "demo", "--trial", 7, "--out", "o")
    serve(run_export=lambda *_arguments, **_more: REPORT)
    assert "as searched, for" not in run(*words).stdout
    serve(run_export=lambda *_arguments, **_more: replace(REPORT, predicted_low_ms=3.9, predicted_high_ms=4.3))
    assert "latency as searched, for 90 % of measured times: 4.1 ms (3.9 ms to 4.3 ms)" in run(*words).stdout


def test_a_prediction_for_another_device_is_not_shown_as_this_ones(serve):
    found = replace(REPORT, predicted_for="Board X, onnxruntime 1.23.0, 2 threads")
    serve(run_export=lambda *_arguments, **_options: found)
    shown = run("export", "demo", "--trial", 7, "--out", "o").stdout
    assert "the searched latency holds on Board X, onnxruntime 1.23.0, 2 threads" in " ".join(shown.split())
    assert "time the artifact there" in " ".join(shown.split())


def raising(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


def test_front_and_export_pass_on_what_they_are_told(serve, monkeypatch):
    calls, found = [], SearchResult(study="demo", metric="accuracy", front=())
    serve(
        load_front=lambda study, storage, *, pick: calls.append((study, storage, pick)) or found,
        run_export=lambda study, storage, **more: calls.append((study, storage, more)) or REPORT,
    )
    monkeypatch.setenv("PARETRIM_STORAGE", "sqlite:///env.db")
    assert run("front", "demo", "--pick", "knee").exit_code == 0
    assert run("front", "demo", "--pick", "nicest").exit_code == ExitCode.USAGE
    assert run("export", "demo", "--trial", 7, "--out", "o", "--storage", "sqlite:///x.db").exit_code == 0
    done = run("export", "demo", "--pick", "smallest", "--out", "o", "--json")
    assert json.loads(done.stdout)["artifact"] == "out"
    unasked = {"recovery": None, "early_exit": None, "registration": None}
    assert calls == [
        ("demo", "sqlite:///env.db", "knee"),
        ("demo", "sqlite:///x.db", {"pick": None, "trial": 7, "out": Path("o"), **unasked}),
        ("demo", "sqlite:///env.db", {"pick": "smallest", "trial": None, "out": Path("o"), **unasked}),
    ]


def test_an_early_exit_is_asked_for_in_points_and_shown(serve):
    from controller.early_exit_options import EarlyExitOptions

    calls = []
    leaving = ExitSummary(
        block="bert.encoder.layer.1",
        share=0.4,
        whole_quality=0.903,
        expected_latency_ms=2.9,
        mean_latency_ms=2.5,
        whole_mean_latency_ms=3.75,
        dense_mean_latency_ms=9.0,
    )
    serve(
        run_export=lambda study, storage, **more: (
            calls.append(more["early_exit"]) or replace(REPORT, early_exit=leaving)
        )
    )
    options = ("export", "demo", "--trial", 7, "--out", "o")
    done = run(*options, "--early-exit")
    assert "early exit after bert.encoder.layer.1: 40.0% of the holdout leave there" in " ".join(done.stdout.split())
    assert run(*options, "--early-exit", "--exit-tolerance", 0).exit_code == 0
    assert calls == [EarlyExitOptions(tolerance_points=0.5), EarlyExitOptions(tolerance_points=0)]
    assert calls[0].tolerance == pytest.approx(0.005)
    assert calls[0].words == " --early-exit --exit-tolerance 0.5"
    without = run(*options, "--exit-tolerance", 1)
    assert (without.exit_code, "add --early-exit" in without.stderr) == (ExitCode.USAGE, True)
    beyond = run(*options, "--early-exit", "--exit-tolerance", 101)
    assert (beyond.exit_code, "0 to 100 points; got 101" in beyond.stderr) == (ExitCode.USAGE, True)


def test_an_export_that_is_not_verified_has_its_own_code(serve):

    def refuse(*_arguments, **_options):
        raise ArtifactError("accuracy differs by 0.02; at most 0.003 is allowed")

    serve(run_export=refuse)
    done = run("export", "demo", "--trial", 7, "--out", "o")
    assert done.exit_code == ExitCode.NOT_VERIFIED
    assert "accuracy differs by 0.02" in done.stderr
    assert "verified" not in done.stdout
