"""A study on optuna-dashboard: everything that its own database has, and nothing that can be changed."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.dashboard import optuna_study
from controller.storage import Repository, TrialRole, TrialState, open_database
from controller.study_summary import StudySummary, summarise


@pytest.fixture(scope="module")
def summary(stored_study: str) -> Iterator[StudySummary]:
    database = open_database(stored_study)
    yield summarise(Repository(database), "simulated")
    database.dispose()


@pytest.fixture(scope="module")
def address(stored_study: str) -> Iterator[str]:
    """The address that a running `paretrim dashboard` has printed."""
    command = [sys.executable, "-c", "from controller.cli import main; main()", "dashboard", "simulated"]
    command += ["--port", "0", "--storage", stored_study]
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            yield re.search(r"http://\S+", server.stdout.readline())[0]
        finally:
            server.terminate()
            assert server.wait(30) == 0


def fetch(url: str, **options) -> dict:
    with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=30) as answer:
        return json.load(answer)


def test_the_page_has_every_trial_with_names_and_feasibility(address: str, summary: StudySummary) -> None:
    base = address.partition("/dashboard/")[0]
    with urllib.request.urlopen(address, timeout=30) as page:
        assert b"<title>Optuna Dashboard" in page.read()
    (study,) = fetch(f"{base}/api/studies")["study_summaries"]
    assert (study["study_name"], study["directions"]) == ("simulated", ["maximize", "minimize"])
    shown = fetch(f"{base}/api/studies/{study['study_id']}")
    assert shown["objective_names"] == ["accuracy", "latency_ms"]
    expected = Counter(
        TrialState.PRUNED if t.role is TrialRole.PROBE and t.state is TrialState.COMPLETE else t.state
        for t in summary.trials
    )
    assert Counter(t["state"].lower() for t in shown["trials"]) == expected
    assert expected[TrialState.FAIL] == 1
    met = {t["number"] for t in shown["trials"] if t["state"] == "Complete" and max(t["constraints"]) <= 0}
    assert {m.number for m in summary.front} <= met
    assert 0 not in met, "the dense model is slower than the job allows"


def test_a_stranger_and_a_change_are_refused(address: str, summary: StudySummary) -> None:
    base = address.partition("/dashboard/")[0]
    for options in ({"headers": {"Host": "example.org"}}, {"method": "DELETE"}, {"method": "POST", "data": b"{}"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            fetch(f"{base}/api/studies/0", **options)
    assert len(fetch(f"{base}/api/studies/0")["trials"]) == len(summary.trials)


def test_trials_keep_number_policy_and_values(summary: StudySummary) -> None:
    trials = optuna_study(summary).trials
    for row, trial in zip(summary.trials, trials, strict=True):
        assert trial.number == row.number
        assert {unit: (c.keep, c.format) for unit, c in row.policy.choices.items()} == {
            unit: (trial.params[f"{unit}:keep"], trial.params[f"{unit}:format"]) for unit in row.policy.choices
        }
        if row.state is TrialState.COMPLETE and row.role is not TrialRole.PROBE:
            assert trial.values == [row.quality, row.costs.latency_ms]
    failed = next(t for t in trials if t.state.name == "FAIL")
    assert "failure" in failed.user_attrs


def test_a_missing_extra_is_named(stored_study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    result = CliRunner().invoke(app, ["dashboard", "simulated", "--storage", stored_study])
    assert result.exit_code == 2
    assert "pip install 'paretrim[dashboard]'" in " ".join(result.stderr.split())


def test_a_port_in_use_is_named(stored_study: str, address: str) -> None:
    port = re.search(r":(\d+)/", address)[1]
    result = CliRunner().invoke(app, ["dashboard", "simulated", "--port", port, "--storage", stored_study])
    assert result.exit_code == 2
    assert f"{port} on 127.0.0.1 is not" in " ".join(result.stderr.split())
