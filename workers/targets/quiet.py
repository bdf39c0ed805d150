"""Tells the moments in which nobody disturbs this CPU core from the others, and waits for them.

On shared machines a neighbour on the same core slows everything by half, for milliseconds or for seconds, and the
operating system does not tell. A small product of matrices of known time does: it is timed right before and right
behind each run, and where it takes longer than usual, so did the run.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from functools import cache

import numpy as np

TOLERANCE = 0.1
"""How much longer than usual the probe may take in a quiet moment."""
RUN_PATIENCE_S = 0.2
"""Longest wait for a quiet moment before one run."""
PATIENCE_S = 10.0
"""Waits may last this long in all, and as long as the time between them took: a profile at most doubles."""
MOST_PATIENCE_S = 60.0
"""Longest wait that time without one allows."""
CALIBRATION_S = 0.3
"""How long the probe is timed at first, to learn what is usual."""
_FASTEST = 10
_SIDE = 48
_PRODUCTS = 12


class QuietMoments:
    """Knows from a probe when the core is undisturbed.

    Args:
        probe: Returns how long a fixed piece of work took just now, in any unit; about 20 us of it is enough.
        clock: Seconds, from any beginning.
    """

    def __init__(self, probe: Callable[[], float], clock: Callable[[], float] = time.perf_counter) -> None:
        self._probe = probe
        self._clock = clock
        self._fastest: list[float] = []
        self._left_s = PATIENCE_S
        self._waited_at_s = clock()
        end = self._waited_at_s + CALIBRATION_S
        while len(self._fastest) < _FASTEST or clock() < end:
            self.is_quiet()

    @property
    def usual(self) -> float:
        """Time of the probe in a quiet moment: the tenth smallest so far, as single ones may be flukes."""
        return -self._fastest[0]

    def is_quiet(self) -> bool:
        """Time the probe: whether it took no longer than usual."""
        found = self._probe()
        if len(self._fastest) < _FASTEST:
            heapq.heappush(self._fastest, -found)
        else:
            heapq.heappushpop(self._fastest, -found)
        return found <= (1 + TOLERANCE) * self.usual

    def wait(self) -> None:
        """Return in a quiet moment, or when patience is over; see `RUN_PATIENCE_S` and `PATIENCE_S`."""
        start = self._clock()
        left_s = min(self._left_s + start - self._waited_at_s, MOST_PATIENCE_S)
        end = start + min(RUN_PATIENCE_S, left_s)
        while not self.is_quiet() and self._clock() < end:
            pass
        self._waited_at_s = self._clock()
        self._left_s = left_s - (self._waited_at_s - start)


@cache
def quiet_moments() -> QuietMoments:
    """Return what this process knows of its core; the first call calibrates the probe."""
    side = np.random.default_rng(0).random((_SIDE, _SIDE), np.float32)
    out = np.empty_like(side)

    def probe() -> float:
        start_ns = time.perf_counter_ns()
        for _ in range(_PRODUCTS):
            np.dot(side, side, out=out)
        return time.perf_counter_ns() - start_ns

    return QuietMoments(probe)
