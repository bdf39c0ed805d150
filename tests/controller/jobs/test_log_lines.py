"""Log lines as JSON: what every line says, and how those of the study's process reach the controller's."""

import json
import logging

import pytest

from controller.cli.progress import JsonProgress, ProgressView, progress_view
from controller.cli.text import stderr_console
from controller.errors import UsageError
from controller.log_lines import JsonLines, log_as_json
from controller.log_relay import relayed_log
from controller.results import Progress


@pytest.fixture(autouse=True)
def loggers_as_before():
    names = ("controller", "workers", "evaluators", "search_spaces")
    before = [(log := logging.getLogger(name), list(log.handlers), log.level, log.propagate) for name in names]
    yield
    for log, handlers, level, propagate in before:
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_names_job_study_trial_and_attempt_and_no_password(capsys, monkeypatch):
    monkeypatch.setenv("PARETRIM_JOB_ID", "demo-0123456789ab")
    monkeypatch.setenv("PARETRIM_ATTEMPT", "2")
    log_as_json()
    log_as_json()
    told = {"study": "demo", "trial": 3, "attempt": "a1"}
    logging.getLogger("controller.study_observer").info("lost postgresql://me:word@db\nanother line", extra=told)
    (line,) = lines(capsys)
    assert line.items() >= {**told, "job": "demo-0123456789ab", "run": 2, "level": "info"}.items()
    assert "word" not in line["message"]


def test_lines_of_the_studys_process_come_out_of_the_controller(capsys, monkeypatch):
    monkeypatch.setenv("PARETRIM_LOG", "json")
    with relayed_log() as path:
        handler = logging.FileHandler(path)
        handler.setFormatter(JsonLines())
        elsewhere = logging.Logger("study")
        elsewhere.addHandler(handler)
        for number in range(3):
            elsewhere.warning("trial", extra={"trial": number})
        handler.close()
    assert [line["trial"] for line in lines(capsys)] == [0, 1, 2]


def test_without_the_wish_nothing_changes(monkeypatch):
    monkeypatch.delenv("PARETRIM_LOG", raising=False)
    with relayed_log() as path:
        assert path is None
    assert isinstance(progress_view(stderr_console()), ProgressView)


def test_progress_is_a_line_for_each_stage(capsys):
    view = JsonProgress(seconds_between_lines=1000)
    for stage in ("profiling (1 of 9)", "profiling (2 of 9)", "searching"):
        view(Progress(stage=stage, trials_done=1, trials_total=4))
    assert [line["progress"]["stage"] for line in lines(capsys)] == ["profiling (1 of 9)", "searching"]


def test_another_form_is_refused(monkeypatch):
    monkeypatch.setenv("PARETRIM_LOG", "xml")
    with pytest.raises(UsageError, match="text or json; got 'xml'"):
        progress_view(stderr_console())
