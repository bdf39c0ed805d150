"""Says what is going on while a command prepares, measures or scores."""

import time
from collections.abc import Callable

from controller.results import Progress

_STAGE_EVERY_S = 2.0


class Stages:
    """Reports what is going on: at the start of a stage, at its end, and now and then between.

    Args:
        on_progress: Who is told.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self.on_progress = on_progress
        self._started = time.monotonic()
        self._stage, self._reported = "", 0.0
        self._stage_began = self._started
        self.seconds: dict[str, float] = {}
        """Seconds that each stage took which has ended."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Report a stage.

        Args:
            stage: What is going on.
            done: Steps done.
            total: Steps in all; 0 where that means nothing.
        """
        now = time.monotonic()
        if stage == self._stage and done < total and now - self._reported < _STAGE_EVERY_S:
            return
        if stage != self._stage:
            self.ended()
            self._stage_began = now
        self._stage, self._reported = stage, now
        counted = f"{stage} ({done} of {total})" if total else stage
        self.on_progress(Progress(stage=counted, elapsed_s=now - self._started))

    def ended(self) -> None:
        """Note how long the stage at work took so far."""
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + time.monotonic() - self._stage_began
            self._stage_began = time.monotonic()
