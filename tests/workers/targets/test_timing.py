"""Timing of calls: statistics, and runs that a neighbour disturbs."""

import time

import numpy as np
import pytest

from workers.targets.quiet import QuietMoments
from workers.targets.timing import summarise, time_calls


class Scripted(QuietMoments):
    """Says of each moment what it was told, then that all are quiet."""

    def __init__(self, moments: list[bool]) -> None:
        super().__init__(lambda: 1.0)
        self.script = iter(moments)
        self.waits = 0

    def is_quiet(self) -> bool:
        return next(self.script, True) if hasattr(self, "script") else super().is_quiet()

    def wait(self) -> None:
        self.waits += 1


class Call:
    """Takes the milliseconds that stand for each run, behind three of warm-up."""

    def __init__(self, *milliseconds: float) -> None:
        self.left = [0.0, 0.0, 0.0, *milliseconds]
        self.made = -3

    def __call__(self) -> None:
        self.made += 1
        if self.left:
            end = time.perf_counter() + self.left.pop(0) / 1000
            while time.perf_counter() < end:
                pass


def test_runs_that_begin_or_end_disturbed_are_set_aside_and_made_up_for() -> None:
    call = Call(1, 9, 9, 1, 1)
    quiet = Scripted([True, True, False, True, False])
    times_ms = time_calls(call, runs=3, limit_s=10, quiet=quiet)
    assert call.made == quiet.waits == 5
    assert len(times_ms) == 3
    assert times_ms.max() < 5


def test_all_runs_count_where_hardly_one_is_quiet() -> None:
    call = Call()
    times_ms = time_calls(call, runs=4, limit_s=10, quiet=Scripted([False] * 100))
    assert len(times_ms) == call.made == 12


def test_a_limit_ends_the_search_for_quiet_runs() -> None:
    call = Call(*[5] * 12)
    times_ms = time_calls(call, runs=4, limit_s=0.02, quiet=Scripted([False] * 100))
    assert 3 <= len(times_ms) < 12


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_without_watching_every_run_counts(runs: int) -> None:
    assert len(time_calls(Call(), runs=runs, limit_s=10)) == runs


def test_statistics_are_of_all_calls_but_for_the_undisturbed_time() -> None:
    stats = summarise(np.arange(1, 102, dtype=float), np.array([0.5]))
    assert (stats.median_ms, stats.p99_ms, stats.spread_ms, stats.repeats) == (51, 100, 50, 101)
    assert stats.undisturbed_ms == 0.5
