"""Progress on terminals and in pipes, and numbers as people read them."""

import io
from dataclasses import replace

from rich.console import Console

from controller.cli.progress import ProgressView, progress_line
from controller.cli.text import clean, format_count, format_seconds, format_size
from controller.results import Progress


def test_a_pipe_gets_a_line_for_each_stage_and_then_now_and_then():
    with io.StringIO() as sink:
        console = Console(file=sink, record=True, width=200)
        with ProgressView(console, seconds_between_lines=1000) as view:
            for done in range(50):
                view(Progress(stage="searching", trials_done=done, trials_total=50))
            view(Progress(stage="scoring the front on the holdout", trials_done=50, trials_total=50))
        assert console.export_text().splitlines() == [
            "searching, 0/50 trials",
            "scoring the front on the holdout, 50/50 trials",
        ]


def test_a_pipe_gets_steps_of_a_stage_now_and_then_too():
    with io.StringIO() as sink:
        console = Console(file=sink, record=True, width=200)
        with ProgressView(console, seconds_between_lines=1000) as view:
            for stage in ("profiling", "timing whole models"):
                for done in range(1, 51):
                    view(Progress(stage=f"{stage} ({done} of 50)"))
        assert console.export_text().splitlines() == ["profiling (1 of 50)", "timing whole models (1 of 50)"]


def test_a_terminal_gets_a_live_display():
    with io.StringIO() as sink:
        console = Console(file=sink, record=True, width=100, force_terminal=True)
        with ProgressView(console) as view:
            view(Progress(stage="searching", trials_done=3, trials_total=50, hypervolume=0.5, best="trial 2"))
        text = console.export_text()
    assert "3/50 trials" in text
    assert "best: trial 2" in text


def test_progress_line_has_all_that_is_known():
    progress = Progress(
        stage="searching", trials_done=3, trials_total=9, failed=1, front_size=2, hypervolume=0.5, best="b", eta_s=3700
    )
    expected = "searching, 3/9 trials, 1 failed, front 2, hypervolume 0.5000, 1 h 1 min left, best: b"
    assert progress_line(progress) == expected
    counted = replace(progress, baselines=2)
    assert "searching, 3/9 trials (2 of them baselines), 1 failed" in progress_line(counted)


def test_numbers_for_people():
    assert [format_count(n) for n in (0, 1234, 9_999_999, 10**7, 5**40)] == [
        "0",
        "1,234",
        "9,999,999",
        "1.0e7",
        "9.1e27",
    ]
    assert [format_size(n) for n in (None, 12, 1500, 90_000_000, 2.5e9)] == [
        "unknown",
        "12 B",
        "1.5 kB",
        "90 MB",
        "2.5 GB",
    ]
    assert [format_seconds(s) for s in (None, float("inf"), 0.4, 59.6, 3600)] == [
        "unknown",
        "unknown",
        "0 s",
        "1 min 0 s",
        "1 h 0 min",
    ]
    assert clean("a" * 300, most=10) == "aaaaaaa..."
