"""What `paretrim sensitivity` and `paretrim sweep` print."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.sensitivity.report import Axis, Change, SensitivityReport, UnitSensitivity
from controller.sensitivity.sweep_report import SweepResult, SweepRow, SweepVerdict

CHANGE = Change(
    axis=Axis.KEEP,
    keep=6,
    share=0.5,
    format="fp32",
    loss=0.02,
    loss_low=0.0,
    loss_high=0.04,
    kl_to_dense=0.001,
    examples=32,
    saved_latency_ms=0.5,
    saved_size_bytes=1000,
)

SENSITIVITY = SensitivityReport(
    study="demo",
    metric="accuracy",
    reference="dense",
    reference_quality=0.92,
    examples=512,
    units=(
        UnitSensitivity(
            name="layer.0.attention",
            kind="attention",
            groups=12,
            latency_ms=1.5,
            latency_share=0.15,
            size_bytes=2_400_000,
            size_share=0.125,
            changes=(
                CHANGE,
                replace(CHANGE, keep=0, share=0.0, loss=None, examples=0, failure="out of memory"),
                replace(CHANGE, axis=Axis.FORMAT, keep=12, share=1.0, format="w8a8", loss=None, examples=0),
            ),
        ),
        UnitSensitivity(
            name="embeddings",
            kind="embedding",
            groups=1,
            latency_ms=0.1,
            latency_share=0.01,
            size_bytes=1,
            size_share=0.5,
            changes=(),
        ),
    ),
    scored=1,
    missing=2,
    confidence=0.95,
    notes=("one probe failed",),
    files=(Path("s.csv"),),
)

SWEEP = SweepResult(
    study="demo",
    metric="accuracy",
    examples=512,
    max_drop=0.02,
    confidence=0.95,
    dense_quality=0.92,
    dense_latency_ms=10.0,
    dense_size_bytes=90_000_000,
    rows=(
        SweepRow(
            name="keep 0.5, w8a8",
            keep=0.5,
            kept=0.5,
            format="w8a8",
            policy_digest="d",
            quality=0.91,
            drop=0.01,
            drop_low=0.0,
            drop_high=0.02,
            latency_ms=3.0,
            latency_ratio=0.3,
            size_bytes=20_000_000,
            size_ratio=0.22,
            within=True,
        ),
        SweepRow(
            name="keep 0.3, w8a8",
            keep=0.3,
            kept=0.3,
            format="w8a8",
            policy_digest="e",
            latency_ms=2.0,
            latency_ratio=0.2,
            size_bytes=15_000_000,
            size_ratio=0.16,
            failure="out of memory",
        ),
    ),
    verdicts=(SweepVerdict(format="w8a8", keep=0.5, sentence="w8a8: pruned the furthest at keep 0.5"),),
    scored=1,
    foreign_table=True,
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def raising(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


def test_sensitivity_shows_losses_and_passes_on_what_it_is_told(job_file, serve):
    calls = []
    serve(run_sensitivity=lambda job, view, **more: calls.append((job.name, more)) or SENSITIVITY)
    done = run("sensitivity", job_file, "--fisher", "--csv", "s.csv", "--out", "o")
    assert done.exit_code == 0
    assert "loss of accuracy against dense when one unit is changed alone" in done.stdout
    assert re.search(r"layer.0.attention +15.0% +12.5% +\+0.020 \(0.001\) +failed +-\n", done.stdout)
    assert re.search(r"embeddings +1.0% +50.0% *\n", done.stdout)
    assert "1 changes scored on 32 of 512 examples; accuracy of dense 0.9200" in done.stdout
    assert "note: one probe failed" in done.stdout
    assert "wrote s.csv" in done.stdout
    assert (
        json.loads(run("sensitivity", job_file, "--measure", "--json").stdout)["units"][0]["changes"][0]["loss"] == 0.02
    )
    assert calls == [
        ("demo", {"measure": False, "fisher": True, "out": Path("o"), "csv": Path("s.csv")}),
        ("demo", {"measure": True, "fisher": False, "out": None, "csv": None}),
    ]


def test_sweep_shows_the_table_and_how_far_pruning_goes(job_file, serve):
    calls = []
    serve(run_sweep=lambda job, view, **more: calls.append((job.name, more)) or SWEEP)
    done = run("sweep", job_file, "--keep", "0.3,0.5", "--max-drop", 0.02, "--format", "w8a8")
    assert done.exit_code == 0
    assert re.search(r"dense +1.00 +0.9200 +10 ms +1.00x +90 MB +1.00x", done.stdout)
    assert re.search(
        r"keep 0.5, w8a8 +0.50 +0.9100 +\+0.0100 \(\+0.0000 to \+0.0200\) +3 ms +0.30x +20 MB +0.22x +yes", done.stdout
    )
    assert "keep 0.3, w8a8 has no score: out of memory" in done.stdout
    assert "w8a8: pruned the furthest at keep 0.5" in done.stdout
    assert "1 of 2 scored now" in done.stdout
    assert "on another device" in done.stdout
    assert json.loads(run("sweep", job_file, "--json").stdout)["rows"][1]["quality"] is None
    assert calls == [
        ("demo", {"keep": (0.3, 0.5), "max_drop": 0.02, "format": "w8a8"}),
        ("demo", {"keep": (0.9, 0.7, 0.5, 0.3), "max_drop": None, "format": None}),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "0.5,half"], "numbers with commas between; got 'half'"),
        (["--keep", "0"], "above 0 to 1; got 0"),
        (["--keep", "1.2"], "above 0 to 1; got 1.2"),
        (["--max-drop", "-0.1"], "the tolerated loss is a fraction of 1"),
        (["--format", "int3"], "no kernel for format 'int3'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_anything_is_loaded(job_file, serve, options, message):
    serve(run_sweep=raising(AssertionError("the sweep began")))
    done = run("sweep", job_file, *options)
    assert done.exit_code == ExitCode.USAGE
    assert message in done.stderr
