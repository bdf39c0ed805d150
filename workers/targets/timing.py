"""Times calls on this machine's CPU: warm-up, caches as in a model, and no time that other programs took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.targets.quiet import QuietMoments
from workers.targets.run_queue import RunQueueWait
from workers.targets.undisturbed import undisturbed_ms

SAMPLE_SECONDS = 0.25
"""After this time no further run of an operator's sample starts."""
MODEL_SECONDS = 10
"""After this time no further run of a whole model's sample starts."""
WARM_UP_RUNS = 3
MIN_RUNS = 3
MOST_TIMES_RUNS = 3
"""How many times as many runs are made where too few of them come in quiet moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingStats:
    """Times of repeated runs of a whole model.

    Attributes:
        median_ms: Median time of a run.
        undisturbed_ms: Median of the fastest fifth of the runs in quiet moments.
        p99_ms: 99th percentile.
        spread_ms: Interquartile range.
        repeats: Timed runs.
    """

    median_ms: float
    undisturbed_ms: float
    p99_ms: float
    spread_ms: float
    repeats: int


def time_calls(
    call: Callable[[], object],
    *,
    runs: int,
    limit_s: float,
    displaced_bytes: int = 0,
    quiet: QuietMoments | None = None,
) -> npt.NDArray[np.float64]:
    """Time a call.

    Args:
        call: What to time.
        runs: Timed runs after the warm-up.
        limit_s: After this time no further run starts, once there are three.
        displaced_bytes: Other data that is read before each run, outside the measured time, and displaces the weights
            from caches of that size.
        quiet: Waits for a quiet moment before each run, and sets aside the runs that did not begin and end in one; None
            takes all.

    Returns:
        Milliseconds of each run, (runs,) or fewer; time that the calling thread waited for a CPU is not part of them.
        With `quiet` those of quiet runs, which may need three times as many runs; if there are not three quiet ones, of
        all that were made.
    """
    return time_copies((call,), runs=runs, limit_s=limit_s, displaced_bytes=displaced_bytes, quiet=quiet)


def time_copies(
    calls: Sequence[Callable[[], object]],
    *,
    runs: int,
    limit_s: float,
    displaced_bytes: int = 0,
    between: Callable[[], object] | None = None,
    quiet: QuietMoments | None = None,
) -> npt.NDArray[np.float64]:
    """Time calls that do alike, each by itself; see `time_calls`.

    Args:
        calls: What to time: each once in a run.
        runs: Timed runs after the warm-up.
        limit_s: After this time no further run starts, once there are three.
        displaced_bytes: Other data that is read before each run.
        between: Called before each call, outside the measured time: work that a model does between two of its kind.
        quiet: Waits for a quiet moment before each run.

    Returns:
        Mean milliseconds of a call in each run, (runs,) or fewer; with `quiet` up to three times as many.
    """
    displaced = np.ones(displaced_bytes // 8, np.int64)
    for call in (*calls, *[calls[-1]] * (WARM_UP_RUNS - 1)):
        call()
    found: list[_Run] = []
    spent_ns = 0
    with RunQueueWait() as wait:
        while _wants_more(found, runs, spent_ns < limit_s * 1e9):
            if quiet is not None:
                quiet.wait()
            start_ns = time.perf_counter_ns()
            displaced.sum()
            is_quiet = quiet is None or quiet.is_quiet()
            elapsed_ns = sum(_elapsed_ns(call, between, wait) for call in calls)
            found.append(_Run(elapsed_ns, is_quiet and (quiet is None or quiet.is_quiet())))
            spent_ns += time.perf_counter_ns() - start_ns
    chosen = [run for run in found if run.is_quiet]
    if len(chosen) < MIN_RUNS:
        chosen = found
    return np.array([run.elapsed_ns for run in chosen]) / 1e6 / len(calls)


@dataclass(frozen=True, slots=True)
class _Run:
    elapsed_ns: int
    is_quiet: bool


def _wants_more(found: Sequence[_Run], runs: int, has_time: bool) -> bool:
    """Whether a further run starts."""
    if len(found) < min(MIN_RUNS, runs):
        return True
    return has_time and len(found) < MOST_TIMES_RUNS * runs and sum(run.is_quiet for run in found) < runs


def _elapsed_ns(call: Callable[[], object], between: Callable[[], object] | None, wait: RunQueueWait) -> int:
    if between is not None:
        between()
    waited_ns, start_ns = wait.nanoseconds(), time.perf_counter_ns()
    call()
    ran_ns = time.perf_counter_ns() - start_ns
    # Time without a CPU is other programs' doing.
    return max(1, ran_ns - (wait.nanoseconds() - waited_ns))


def summarise(times_ms: npt.NDArray[np.float64], quiet_ms: npt.NDArray[np.float64]) -> TimingStats:
    """Summarise times, (runs,) in ms: of all calls as they came, and of calls in quiet moments."""
    low, median, high, p99 = (float(x) for x in np.percentile(times_ms, [25, 50, 75, 99]))
    return TimingStats(
        median_ms=median,
        undisturbed_ms=undisturbed_ms(quiet_ms),
        p99_ms=p99,
        spread_ms=high - low,
        repeats=len(times_ms),
    )
