"""Time that a thread is ready to run and has no CPU, so that other programs' work is not taken for the model's."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

_SCHEDULER_STATISTICS = Path("/proc/thread-self/schedstat")


class RunQueueWait:
    """Reads how long the calling thread has waited for a CPU since it began, where Linux tells it.

    Use it as a context, from one thread only.
    """

    def __init__(self) -> None:
        self._file: int | None = None

    def __enter__(self) -> Self:
        try:
            self._file = os.open(_SCHEDULER_STATISTICS, os.O_RDONLY)
        except OSError:
            self._file = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def nanoseconds(self) -> int:
        """Return the time waited so far, in ns; always 0 where the system does not tell."""
        if self._file is None:
            return 0
        words = os.pread(self._file, 128, 0).split()
        return int(words[1]) if len(words) > 1 else 0
