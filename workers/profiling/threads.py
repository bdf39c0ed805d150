"""Keeps what is timed on the same CPUs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def usable_cpus() -> int:
    """Return how many CPUs this process may use, 1 or more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_in_use() -> tuple[int, ...] | None:
    """Return the numbers of the CPUs that the calling thread runs on, sorted; None where the system can't tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep the calling thread, and those that it starts meanwhile, on as many CPUs as the runtime has threads.

    Threads that run already stay where they are. Does nothing where the system can't pin, or has no CPU to spare.

    Args:
        threads: Threads of the runtime, 1 or more.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    if threads >= len(before):
        yield
        return
    # Low numbers serve interrupts first.
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
