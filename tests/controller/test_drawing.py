"""Drawings of characters: sizes that fit, values in their places, and plain letters where blocks are missing."""

import io

import pytest
from rich.console import Console

from controller.cli.drawing import Axis, Mark, bar, draws_blocks, scatter, sparkline
from controller.cli.progress_picture import SearchPace, picture
from controller.cli.render_drawing import draw_front, render_drawing
from controller.results import FrontPoint, FrontRow, PickSummary, Progress, SearchResult


def test_bars_are_as_long_as_the_share() -> None:
    assert bar(0.5, width=8) == "████    "
    assert bar(0.5625, width=8) == "████▌   "
    assert bar(0.5, width=8, blocks=False) == "####    "
    assert [len(bar(share, width=8)) for share in (-1, 0, 0.01, 0.99, 1, 2)] == [8] * 6
    assert bar(2, width=3) == "███"


def test_sparklines_show_the_ends_and_fit() -> None:
    assert sparkline([0, 1, 2, 7], width=9) == "▁▂▃█"
    assert sparkline([3, 3], width=9) == "▁▁"
    assert sparkline([], width=9) == ""
    many = sparkline(list(range(1000)), width=20)
    assert (len(many), many[0], many[-1]) == (20, "▁", "█")
    assert sparkline([0, 9], width=2, blocks=False) == "09"


def test_which_encodings_have_blocks() -> None:
    assert [draws_blocks(name) for name in ("utf-8", "UTF8", "utf_16", "ascii", "latin-1", None)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("blocks", [True, False])
def test_a_scatter_puts_marks_where_they_belong(blocks: bool) -> None:
    x, y = Axis(title="latency (ms)", low=0, high=10), Axis(title="accuracy", low=0, high=1)
    marks = [Mark(x=0, y=1, letter="a"), Mark(x=10, y=0, letter="b"), Mark(x=20, y=0.5, letter="c")]
    lines = scatter(marks, [(0, 1), (10, 0)], x, y, width=60, height=10, blocks=blocks)
    assert all(len(line) <= 60 for line in lines)
    assert lines[0] == "accuracy"
    assert lines[-1].endswith("latency (ms)")
    left = lines[1].index("a")
    assert lines[10].rindex("b") > left + 40
    assert "c" not in "".join(lines[1:11])
    assert "5" in lines[-2]
    assert blocks or all(ord(character) < 128 for line in lines for character in line)


def row(name: str, trial: int, quality: float, latency_ms: float, **more: object) -> FrontRow:
    fields = {"name": name, "trial": trial, "quality": quality, "latency_ms": latency_ms, **more}
    return FrontRow(policy_digest=f"{trial:016d}", size_bytes=1000, latency_ratio=latency_ms / 10, **fields)  # type: ignore[arg-type]


FRONT = (row("trial 3", 3, 0.92, 8.0), row("trial 4", 4, 0.9, 4.0, knee=True), row("trial 5", 5, 0.8, 2.0))
RESULT = SearchResult(
    study="demo",
    metric="accuracy",
    front=FRONT,
    baselines=(row("dense", 0, 0.93, 10.0), row("keep 0.5", 1, 0.85, 6.0), row("keep 0.1", 2, 0.1, 40.0)),
)


def test_a_front_fits_into_80_columns_and_names_what_it_shows() -> None:
    lines = draw_front(RESULT)
    assert max(map(len, lines)) <= 78
    text = "\n".join(lines)
    assert [text.count(letter) for letter in ("K", "D")] == [2, 2]
    assert lines[-1] == "o front; K knee; D dense; x uniform; 1 uniform policy outside"
    picked = PickSummary(rule="knee", trial=5, runner_up=None, explanation="")
    assert "P picked" in draw_front(SearchResult(study="d", metric="m", front=FRONT, picked=picked))[-1]
    assert max(map(len, draw_front(RESULT, width=40))) <= 80


def test_one_member_alone_and_no_member_at_all() -> None:
    assert len(draw_front(SearchResult(study="d", metric="m", front=FRONT[:1]))) > 10
    with io.StringIO() as sink:
        render_drawing(Console(file=sink), SearchResult(study="d", metric="m", front=()))
        assert sink.getvalue() == ""


def test_a_hostile_metric_is_drawn_as_text() -> None:
    lines = draw_front(SearchResult(study="d", metric="[red]x\x1b[31m\n\u202e", front=FRONT))
    assert "\x1b" not in "".join(lines)
    assert "\u202e" not in "".join(lines)


def drawn(progress: Progress, pace: SearchPace, **options: object) -> str:
    with io.StringIO() as sink:
        console = Console(file=sink, width=100, highlight=False, markup=False, **options)  # type: ignore[arg-type]
        console.print(picture(progress, pace, blocks=True))
        return sink.getvalue()


def test_the_live_picture_has_front_pace_and_failures() -> None:
    pace = SearchPace()
    front = tuple(
        FrontPoint(name=f"trial {n}\x1b[31m", quality=0.9 - n / 100, latency_ms=9.0 - n / 10, size_bytes=10**6)
        for n in range(20)
    )
    for done in range(10):
        progress = Progress(
            stage="searching",
            trials_done=done,
            trials_total=40,
            failed=3,
            failures={"timeout": 2, "out_of_memory": 1},
            front_size=20,
            hypervolume=done / 10,
            elapsed_s=60.0 + 3 * done,
            eta_s=61,
            front=front,
            examples_done=100 * done,
        )
        pace.add(progress)
    assert pace.rates == (pytest.approx(20.0), pytest.approx(900 / 27))
    text = drawn(progress, pace)
    for told in (
        "9/40 trials",
        "front so far: 20 members, 10 shown",
        "0.9000",
        "hypervolume 0.9000 ▁",
        "20.0 trials/min, 33 examples/s, 1 min 1 s left",
        "failed: 2 timeout, 1 out_of_memory",
    ):
        assert told in text
    assert "\x1b[31m" not in drawn(progress, pace, force_terminal=True, color_system="standard")


def test_rates_wait_until_they_mean_something() -> None:
    pace = SearchPace()
    pace.add(Progress(stage="profiling"))
    assert pace.rates is None
    pace.add(Progress(stage="searching", trials_done=5, trials_total=9, elapsed_s=100.0))
    assert pace.rates is None
    assert pace.text == ""
