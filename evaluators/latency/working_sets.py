"""Whether rows were timed with about as many weights in the caches as a model has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from evaluators.latency.table.entry import Entry
from evaluators.latency.workload import Operator

APART = 2.0
"""From so many times as many bytes on, weights may come from another memory."""
CLOSE_BYTES = 2**20
"""Working sets up to this many bytes lie in the second level of cache of today's CPUs, whatever they have besides."""


def are_apart(first_bytes: int, second_bytes: int) -> bool:
    """Whether weights of two working sets may come from different memories: one is twice the other, and past 1 MiB."""
    low, high = sorted((first_bytes, second_bytes))
    return high > CLOSE_BYTES and high >= APART * low


def rows_apart(
    entries: Iterable[Entry], operators: Iterable[Operator], working_set_of: Callable[[str | None], int]
) -> Sequence[Entry]:
    """Return the rows of operators that were timed with far more weights in the caches than a model has, or far fewer.

    Rows of imported sources that do not state their working set are not among them.

    Args:
        entries: Rows of a table.
        operators: What the model runs; rows of others do not count.
        working_set_of: Bytes of the model's weights in a format; None means the base format.
    """
    wanted = set(operators)
    return [
        entry
        for entry in entries
        if entry.working_set_bytes is not None
        and entry.operator in wanted
        and are_apart(entry.working_set_bytes, working_set_of(entry.format))
    ]
