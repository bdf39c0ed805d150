"""The command line: exit codes, messages, what goes to stdout, and how fast help is there."""

import io
import json
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import controller
from controller.cli.app import app
from controller.cli.errors import exit_code_of
from controller.cli.exit_codes import ExitCode
from controller.cli.render import render_front
from controller.errors import PreflightError, UsageError
from controller.job_plan import JobPlan, PlanUnit
from controller.results import (
    ExitSummary,
    ExportSummary,
    FailureGroup,
    FrontRow,
    HoldoutCheck,
    LevelGroup,
    PickSummary,
    ProfileSummary,
    Progress,
    SearchResult,
)
from controller.sensitivity.report import Axis, Change, SensitivityReport, UnitSensitivity
from controller.sensitivity.sweep_report import SweepResult, SweepRow, SweepVerdict
from controller.storage import StudyLostError
from evaluators.latency.lookup import MissingEntryError
from evaluators.latency.table import EnergyBasis
from evaluators.scores import ScoreError
from workers.export.artifact import ArtifactError

COMMANDS = (
    "validate",
    "schema",
    "profile",
    "calibrate-table",
    "targets",
    "search",
    "front",
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
HOSTILE = "[red]x[/red]\x1b[31m\u202e:smile:\nnext"


def row(trial, name, quality, latency_ms, **more):
    return FrontRow(
        trial=trial,
        name=name,
        policy_digest="0" * 16,
        quality=quality,
        latency_ms=latency_ms,
        size_bytes=13_200_000,
        latency_ratio=latency_ms / 10,
        **more,
    )


DENSE = row(None, "dense", 0.92, 10.0, holdout_quality=0.91, holdout_low=0.89, holdout_high=0.93)
FRONT = (row(7, "trial 7", 0.915, 4.1, holdout_quality=0.9), row(12, "trial 12", 0.88, 2.25))
RESULT = SearchResult(
    study="demo",
    metric="accuracy",
    front=FRONT,
    baselines=(DENSE,),
    trials_done=40,
    hypervolume=0.75,
    mlflow_address="http://127.0.0.1:5000/#/experiments/1",
)
PLAN = JobPlan(
    study="demo",
    architecture="bert",
    units=(
        PlanUnit(
            name="layer.0.attention",
            kind="attention",
            groups=12,
            keeps=(12, 6, 0),
            formats=("fp32", "w8a8"),
            choices=5,
            latency_ms=1.5,
            size_bytes=2_400_000,
        ),
    ),
    space_size=5**40,
    dense_latency_ms=10.0,
    dense_size_bytes=90_000_000,
    min_latency_ms=1.2,
    min_size_bytes=50_000_000,
    dense_low_ms=9.5,
    dense_high_ms=10.5,
    dense_energy_mj=20.0,
    min_energy_mj=3.456,
    energy_basis=EnergyBasis.ESTIMATED,
    dense_peak_memory_bytes=3_000_000,
    min_peak_memory_bytes=1_500_000,
    constraints_reachable=True,
    table_source="measured on this machine",
    trials=100,
)
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


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


@pytest.fixture
def serve(monkeypatch):
    """Put functions in the place of the services, as each of the real ones loads a model."""

    def put(**functions):
        service = types.ModuleType("controller.operations")
        for name, function in functions.items():
            setattr(service, name, function)
        monkeypatch.setitem(sys.modules, "controller.operations", service)
        monkeypatch.setattr(controller, "operations", service, raising=False)

    return put


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


def test_validate_shows_the_plan(job_file, serve):
    serve(plan=lambda job, **more: PLAN)
    done = run("validate", job_file)
    assert done.exit_code == 0
    for text in (
        "layer.0.attention",
        "12, 6, 0 of 12",
        "fp32, w8a8",
        "9.1e27",
        "10 ms (9.5 ms to 10.5 ms), 90 MB",
        "1.2 ms, 50 MB",
    ):
        assert text in done.stdout
    assert "energy of a batch: 20 mJ dense, 3.46 mJ at least (estimated)" in done.stdout
    assert "peak memory of activations: 3 MB dense, 1.5 MB at least" in done.stdout
    content = json.loads(run("validate", job_file, "--json").stdout)
    assert (content["energy_basis"], content["min_peak_memory_bytes"]) == ("estimated", 1_500_000)
    assert content["space_size"] == 5**40
    assert content["units"][0]["keeps"] == [12, 6, 0]


def test_validate_of_bounds_out_of_reach_is_preflight(job_file, serve):
    line = "max_latency_ms must be at least 1.2; got 0.5"
    serve(plan=lambda job, **more: replace(PLAN, constraints_reachable=False, unreachable=(line,)))
    done = run("validate", job_file)
    assert done.exit_code == ExitCode.PREFLIGHT
    assert line in done.stderr


def test_search_prints_progress_apart_from_the_front(job_file, serve):
    def search(job, on_progress):
        print("a library talks")
        on_progress(Progress(stage="profiling"))
        on_progress(Progress(stage="searching", trials_done=1, trials_total=2, eta_s=61))
        on_progress(Progress(stage="searching", trials_done=2, trials_total=2, failed=1, best="trial 7"))
        return RESULT

    serve(run_search=search)
    done = run("search", job_file)
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "a library talks",
        "profiling",
        "searching, 1/2 trials, 1 min 1 s left",
        "searching, 2/2 trials, 1 failed, best: trial 7",
    ]
    assert "trial 7" in done.stdout
    assert re.search(r"dense +0\.9200 +0\.9100 \(0\.8900 to 0\.9300\) +10 ms +1\.00x +13\.2 MB", done.stdout)
    assert "40 trials, 2 on the front, hypervolume 0.7500" in done.stdout
    assert "MLflow: http://127.0.0.1:5000/#/experiments/1" in done.stdout
    content = json.loads(run("search", job_file, "--json").stdout)
    assert [member["trial"] for member in content["front"]] == [7, 12]
    assert content["schema_version"] == 1


def test_no_feasible_trial_has_its_own_code_and_shows_the_closest(job_file, serve):
    closest = row(3, "trial 3", 0.8, 5.0, feasible=False)
    serve(run_search=lambda job, view: replace(RESULT, front=(), least_violating=(closest,)))
    done = run("search", job_file)
    assert done.exit_code == ExitCode.NO_FEASIBLE_TRIAL
    assert "no policy meets the constraints" in done.stderr
    assert re.search(r"trial 3 .* no$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("as_signal", [True, False])
def test_an_interrupted_search_says_how_to_go_on(tmp_path, serve, as_signal):
    path = tmp_path / "my job.yaml"
    path.write_text(JOB)
    serve(run_search=raising(KeyboardInterrupt()) if as_signal else lambda job, view: replace(RESULT, interrupted=True))
    done = run("search", path)
    assert done.exit_code == ExitCode.INTERRUPTED
    assert f"to go on: paretrim search '{path}'" in done.stderr


def test_failures_are_grouped_with_an_example():
    failed = replace(RESULT, failures=(FailureGroup(reason="timeout", count=3, example=HOSTILE),), foreign_table=True)
    text = shown(failed)
    assert "3 failed (timeout), for example: [red]x[/red][31m:smile:" in text
    assert "other hardware" in text


def shown(result, **options):
    sink = io.StringIO()
    render_front(Console(file=sink, width=200, highlight=False, markup=False, emoji=False, **options), result)
    return sink.getvalue()


TERMINAL = {"force_terminal": True, "color_system": "standard"}


@pytest.mark.parametrize("options", [{}, TERMINAL])
def test_hostile_text_neither_colours_nor_breaks_a_table(options):
    text = shown(replace(RESULT, front=(row(1, HOSTILE, 0.5, 1.0),), study=HOSTILE, metric=HOSTILE), **options)
    assert "[red]x[/red][31m:smile: next" in text
    assert "\u202e" not in text
    assert "\x1b[31m" not in text


def test_no_color_and_pipes_get_no_colours(monkeypatch):
    foreign = replace(RESULT, foreign_table=True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33m" in shown(foreign, **TERMINAL)
    assert "\x1b" not in shown(foreign)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[(\d+;)*[349]\dm", shown(foreign, **TERMINAL))


def test_front_and_export_pass_on_what_they_are_told(serve, monkeypatch):
    calls = []
    serve(
        load_front=lambda study, storage, *, pick: calls.append((study, storage, pick)) or RESULT,
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
    from workers.export.artifact import ArtifactError

    def refuse(*_arguments, **_options):
        raise ArtifactError("accuracy differs by 0.02; at most 0.003 is allowed")

    serve(run_export=refuse)
    done = run("export", "demo", "--trial", 7, "--out", "o")
    assert done.exit_code == ExitCode.NOT_VERIFIED
    assert "accuracy differs by 0.02" in done.stderr
    assert "verified" not in done.stdout


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


def test_a_message_of_an_error_is_cleaned_and_masked(serve):
    serve(load_front=raising(UsageError("no postgresql://me:hunter2@host/db \x1b[31m[red]")))
    done = run("front", "demo")
    assert done.stderr == "no postgresql://me:***@host/db [31m[red]\n"


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
    assert "other hardware" in done.stdout
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


def test_a_front_shows_gaps_level_members_and_the_pick(serve):
    check = HoldoutCheck(
        members=2,
        confidence=0.9,
        mean_gap=0.015,
        dense_gap=0.01,
        level=(LevelGroup(trials=(7, 12), names=("trial 7", "trial 12")),),
    )
    picked = PickSummary(rule="knee", trial=7, runner_up=12, explanation="trial 7: it is where the front bends most")
    gap = replace(FRONT[0], search_gap=0.015, knee=True, level_with=(12,))
    result = replace(
        RESULT,
        front=(gap, FRONT[1]),
        reference={"quality": 0.5, "latency_ms": 10.0},
        holdout_check=check,
        picked=picked,
    )
    serve(load_front=lambda study, storage, *, pick: result)
    shown = run("front", "demo", "--pick", "knee").stdout
    assert re.search(r"trial 7 \(knee\) +0.9150 +0.9000 +\+0.0150 +4.1 ms", shown)
    assert "hypervolume 0.7500 from the reference point accuracy 0.5000 (chance), latency 10.00 ms (dense)" in shown
    assert (
        "search score less holdout score: +0.0150 on average over 2 front members; the dense model's: +0.0100" in shown
    )
    assert "level on the holdout, as their 90 % intervals overlap: trial 7, trial 12" in shown
    assert "picked trial 7: it is where the front bends most" in shown
    body = json.loads(run("front", "demo", "--json").stdout)
    assert body["front"][0]["level_with"] == [12]
    assert body["holdout_check"]["mean_gap"] == 0.015
    assert body["picked"]["runner_up"] == 12


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


def test_results_become_json_without_numbers_that_json_lacks():
    content = replace(RESULT, hypervolume=float("nan")).to_dict()
    assert content["hypervolume"] is None
    assert json.loads(json.dumps(content, allow_nan=False)) == content
