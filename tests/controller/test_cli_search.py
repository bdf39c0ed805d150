"""What `paretrim search` and `paretrim front` print, on terminals and in pipes."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.cli.render import render_front
from controller.jobs.entrypoint import JOB_ID_VARIABLE
from controller.results import FailureGroup, FrontRow, HoldoutCheck, LevelGroup, PickSummary, Progress, SearchResult

JOB = "name: demo\nmodel: {id: org/model}\ndata: {source: org/data}\n"

HOSTILE = "[red]x[/red]\x1b[31m\u202e:smile:\nnext"

TERMINAL = {"force_terminal": True, "color_system": "standard"}


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


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def raising(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


def shown(result, **options):
    sink = io.StringIO()
    render_front(Console(file=sink, width=200, highlight=False, markup=False, emoji=False, **options), result)
    return sink.getvalue()


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
    assert 'next: paretrim export demo --pick "fastest within 1% quality" --out best' in done.stdout
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
    assert "on another device" in text


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


def test_results_become_json_without_numbers_that_json_lacks():
    content = replace(RESULT, hypervolume=float("nan")).to_dict()
    assert content["hypervolume"] is None
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_only_a_job_file_that_stays_is_named_in_commands(job_file, serve, monkeypatch):
    searched = []
    serve(run_search=lambda job, view: searched.append(job) or RESULT)
    run("search", job_file)
    monkeypatch.setenv(JOB_ID_VARIABLE, "demo-1")
    run("search", job_file)
    assert [job.origin.file for job in searched] == [Path(job_file), None]
    assert searched[0] == searched[1]
