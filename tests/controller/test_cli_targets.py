"""The commands about targets: what they hand on, and what they show."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.explanation.report import ExplainReport, Finding, TimeRow
from controller.results import EXTRAPOLATED, FOREIGN_TABLE, FrontRow, SearchResult
from controller.retargeting.report import PricedRow, RetargetResult
from controller.retargeting.target_change import TargetChange
from controller.trial_counts import TrialCounts
from evaluators.latency.idle_choices import IdleKind

HOSTILE = "[red]x[/red]\x1b[31m\u202e"
MEMBER = FrontRow(
    trial=7,
    name="trial 7",
    policy_digest="0" * 16,
    quality=0.9,
    latency_ms=2.0,
    size_bytes=1_000_000,
    latency_ratio=0.5,
    taken_over=True,
)
REPORT = RetargetResult(
    origin="demo",
    origin_target="cpu-onnxruntime, 1 thread, 1 example a call",
    result=SearchResult(
        study="demo-2t",
        metric=f"accuracy{HOSTILE}",
        front=(MEMBER,),
        hypervolume=0.7,
        target="cpu-onnxruntime, 2 threads, 1 example a call",
        origin="demo",
        foreign_table=True,
    ),
    before=(
        PricedRow(
            trial=3,
            name="trial 3",
            policy_digest="1" * 16,
            quality=0.8,
            latency_before_ms=3.0,
            latency_ms=None,
            size_bytes=10,
        ),
    ),
    taken_over=40,
    counts=TrialCounts(scored=20, probes=14, baselines=6, evaluations=22),
    estimates=3,
    left_out=2,
    evaluations=6,
    still_estimated=1,
    hypervolume_before=0.6,
    files=(Path("reports/retarget.html"), Path("reports/front.html")),
)
EXPLAINED = ExplainReport(
    study="demo",
    trial=7,
    name="trial 7",
    target="cpu-onnxruntime, 1 thread, 1 example a call",
    table=Path("table.json"),
    latency_ms=2.0,
    low_ms=None,
    high_ms=None,
    dense_ms=4.0,
    size_ratio=0.25,
    tolerance=0.02,
    rows=(
        TimeRow(name="ffn", choice="keep 6 of 12, w8a8", latency_ms=1.5, share=0.75, dense_ms=3.5, dense_share=0.875),
        TimeRow(name="ffn", operator="linear", latency_ms=1.5, share=0.75, dense_ms=3.5, dense_share=0.875),
        TimeRow(name="total", latency_ms=2.0, share=1.0, dense_ms=4.0, dense_share=1.0),
    ),
    findings=(
        Finding(
            unit="ffn",
            kind=IdleKind.FORMAT_IS_SLOWER,
            choice="keep 6 of 12, w4",
            better="keep 6 of 12, w8a8",
            saved_ms=-0.5,
            sentence=f"ffn: w4 is slower here{HOSTILE}",
        ),
    ),
    sentences=("trial 7 has 0.25 of the dense model's bytes and takes 0.50 of its time",),
    extrapolated=4,
)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_retarget_hands_on_what_differs_and_shows_both_fronts(serve):
    calls = []
    serve(run_retarget=lambda study, storage, change, view: calls.append((study, storage, change)) or REPORT)
    words = ("--threads", 2, "--batch", 4, "--evaluations", 0, "--name", "other", "--allow-foreign-table")
    words += ("--max-energy-mj", 2.5, "--max-peak-memory-bytes", 1000)
    done = run("retarget", "demo", *words, "--storage", "sqlite:///x.db")
    assert done.exit_code == 0, done.output
    bounds = {"max_energy_mj": 2.5, "max_peak_memory_bytes": 1000}
    change = TargetChange(threads=2, batch=4, evaluations=0, study="other", allow_foreign_table=True, **bounds)
    assert calls == [("demo", "sqlite:///x.db", change)]
    assert "front of demo (cpu-onnxruntime, 1 thread" in done.stdout
    assert "demo-2t: front" in done.stdout
    assert "no kernels" in done.stdout
    assert "from demo: 20 trials (20 scored), 14 probes and 6 baselines; 6 scored for this target" in done.stdout
    assert "--evaluations 7 scores them too" in done.stdout
    assert "2 scored trials left out" in done.stdout
    assert FOREIGN_TABLE in done.stdout
    assert "wrote reports/retarget.html" in done.stdout
    assert "\x1b[31m" not in done.stdout
    assert "\u202e" not in done.stdout
    assert json.loads(run("retarget", "demo", "--threads", 2, "--json").stdout)["result"]["front"][0]["taken_over"]


def test_an_interrupted_retarget_says_how_to_go_on(serve):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    serve(run_retarget=interrupt)
    done = run("retarget", "demo", "--threads", 2)
    assert done.exit_code == 130
    assert "every finished trial is kept" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("retarget", "demo", "--batch", 0), "batch: must be greater than or equal to 1"),
        (("retarget", "demo", "--name", "../x"), "study:"),
        (("retarget", "demo", "--max-energy-mj", -1), "max_energy_mj: must be greater than 0"),
        (("retarget", "demo", "--target", "gpu"), "must be a target"),
        (("retarget", "../demo", "--threads", 2), "the study's name"),
        (("explain", "../demo", "--trial", 1), "the study's name"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(words, message):
    done = run(*words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_explain_shows_units_operators_and_findings(serve, tmp_path):
    calls = []
    serve(run_explain=lambda study, storage, **more: calls.append(more) or EXPLAINED)
    done = run("explain", "demo", "--trial", 7, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert calls == [{"trial": 7, "change": TargetChange(), "out": tmp_path}]
    for text in ("keep 6 of 12, w8a8", "linear", "75.0%", "87.5%", "total", "w4 is slower here", f"4 {EXTRAPOLATED}"):
        assert text in done.stdout
    assert "\u202e" not in done.stdout
    assert (
        json.loads(run("explain", "demo", "--trial", 7, "--json").stdout)["findings"][0]["kind"] == "format_is_slower"
    )
