"""How much other work the CPUs had while something was measured."""

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from workers.profiling.threads import cpus_in_use

_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)
"""Fields of a CPU's line in /proc/stat (proc_stat(5)): user, nice, system, irq, softirq, steal."""


class OtherWork:
    """Watches the CPUs that this process may use, from when it is made.

    Work of this process, and of those of its children that have ended, is its own. Time that a hypervisor gave to other
    machines is other work.

    Args:
        cpus: Numbers of the CPUs; None where the system can't tell.
        read: Returns the text of /proc/stat; may raise OSError where there is none.
        own_s: Returns the CPU time in seconds that this process has taken.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        cpus: Collection[int] | None = None,
        *,
        read: Callable[[], str] = _STAT.read_text,
        own_s: Callable[[], float] = lambda: sum(os.times()[:4]),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cpus = cpus_in_use() if cpus is None else cpus
        self._read, self._own_s, self._clock = read, own_s, clock
        self._start = self._now()

    @property
    def cpus(self) -> int:
        """How many CPUs are watched."""
        return len(self._cpus or ())

    def busy_cpus(self) -> float | None:
        """Return how many of the CPUs other work has kept busy on average; None where the system can't tell."""
        now = self._now()
        if self._start is None or now is None or now[0] <= self._start[0]:
            return None
        elapsed_s, busy_s, own_s = (after - before for before, after in zip(self._start, now, strict=True))
        return max(0.0, busy_s - own_s) / elapsed_s

    def _now(self) -> tuple[float, float, float] | None:
        """Seconds by the clock, of the CPUs' work and of this process's."""
        try:
            lines = [line.split() for line in self._read().splitlines()]
        except OSError:
            return None
        wanted = {f"cpu{number}" for number in self._cpus or ()}
        ticks = [sum(int(fields[1 + field]) for field in _BUSY) for fields in lines if fields and fields[0] in wanted]
        if not wanted or len(ticks) < len(wanted):
            return None
        return self._clock(), sum(ticks) / os.sysconf("SC_CLK_TCK"), self._own_s()
