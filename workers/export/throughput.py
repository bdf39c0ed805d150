"""What a model serves to several clients at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import numpy as np

from workers.export.measurement import Throughput

_SECONDS = 2.0
_MOST_CLIENTS = 16


def clients_for(threads: int) -> int:
    """How many clients keep the CPUs of this machine busy, each call running on so many threads."""
    return max(1, min(_MOST_CLIENTS, len(os.sched_getaffinity(0)) // threads))


def measure_throughput(
    open_call: Callable[[], Callable[[], object]], *, clients: int, examples: int, seconds: float = _SECONDS
) -> Throughput:
    """Let clients call at once, each in a thread of its own.

    Args:
        open_call: Opens what a client calls; clients share nothing.
        clients: How many.
        examples: Examples in a call.
        seconds: Time that they call for; each calls once at least.
    """
    calls = [open_call() for _ in range(clients)]
    for call in calls:
        call()
    times_s: list[list[float]] = [[] for _ in calls]
    begin = threading.Barrier(clients)

    def work(call: Callable[[], object], mine: list[float]) -> None:
        begin.wait()
        end = time.perf_counter() + seconds
        while not mine or time.perf_counter() < end:
            started = time.perf_counter()
            call()
            mine.append(time.perf_counter() - started)

    workers = [threading.Thread(target=work, args=pair) for pair in zip(calls, times_s, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    all_ms = 1000 * np.concatenate([np.array(mine) for mine in times_s])
    return Throughput(
        clients=clients,
        examples_per_s=examples * sum(len(mine) / sum(mine) for mine in times_s),
        median_ms=float(np.median(all_ms)),
        p99_ms=float(np.percentile(all_ms, 99)),
    )
