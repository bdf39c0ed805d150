"""Shows where a search stands: a live display on a terminal, a line now and then in a pipe."""

import json
import re
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from controller.cli.drawing import draws_blocks
from controller.cli.progress_picture import SearchPace, picture
from controller.cli.text import clean, format_seconds, print_lines
from controller.log_lines import line_fields, wants_json
from controller.results import Progress

SECONDS_BETWEEN_LINES = 10.0
_STEPS = re.compile(r" \(\d+ of \d+\)$")


class ProgressView:
    """Takes `Progress` records and shows them until the block ends.

    Args:
        console: Where to show them.
        seconds_between_lines: Without a terminal, a line is printed at most this often, and at each new stage.
    """

    def __init__(self, console: Console, *, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._console = console
        self._pause_s = seconds_between_lines
        self._live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        self._blocks = draws_blocks(console.encoding)
        self._pace = SearchPace()
        self._stage = ""
        self._last_line = 0.0
        self._last_shown = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show one record."""
        self._pace.add(progress)
        if self._live is not None:
            self._live.update(picture(progress, self._pace, blocks=self._blocks))
            return
        now, stage = time.monotonic(), _without_steps(progress.stage)
        finished = progress.trials_total > 0 and progress.trials_done >= progress.trials_total
        if stage == self._stage and not finished and now - self._last_line < self._pause_s:
            return
        line = progress_line(progress, self._pace)
        if line != self._last_shown:
            print_lines(self._console, line)
        self._stage, self._last_line, self._last_shown = stage, now, line


class JsonProgress:
    """Takes `Progress` records and logs them as JSON lines: at each new stage, and now and then.

    Args:
        seconds_between_lines: Least time between two lines of one stage.
    """

    def __init__(self, *, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._pause = seconds_between_lines
        self._stage, self._last_line = "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open."""

    def __call__(self, progress: Progress) -> None:
        """Log one record."""
        now, stage = time.monotonic(), _without_steps(progress.stage)
        if stage == self._stage and now - self._last_line < self._pause:
            return
        self._stage, self._last_line = stage, now
        told = {name: value for name, value in progress.to_dict().items() if name not in ("schema_version", "best")}
        line = line_fields("info", __name__, progress_line(progress)) | {"progress": told}
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()


def progress_view(console: Console) -> ProgressView | JsonProgress:
    """Return how a search is shown: as JSON lines where PARETRIM_LOG asks for them, else for people.

    Raises:
        UsageError: PARETRIM_LOG names another form.
    """
    return JsonProgress() if wants_json() else ProgressView(console)


def _without_steps(stage: str) -> str:
    """A stage's name without the steps done and to do behind it: "profiling (3 of 40)"."""
    return _STEPS.sub("", stage)


def progress_line(progress: Progress, pace: SearchPace | None = None) -> str:
    """Return one line with all that is known."""
    parts = [clean(progress.stage)]
    if progress.trials_total:
        parts.append(progress.trials_text)
    parts += _details(progress)
    if pace is not None and progress.trials_total and pace.text:
        parts.append(pace.text)
    if progress.best is not None:
        parts.append(f"best: {clean(progress.best)}")
    return ", ".join(parts)


def _details(progress: Progress) -> list[str]:
    parts = []
    if progress.failed:
        reasons = ", ".join(f"{count} {clean(reason)}" for reason, count in progress.failures.items())
        parts.append(f"{progress.failed} failed" + (f" ({reasons})" if reasons else ""))
    if progress.front_size:
        parts.append(f"front {progress.front_size}")
    if progress.hypervolume is not None:
        parts.append(f"hypervolume {progress.hypervolume:.4f}")
    if progress.eta_s is not None:
        parts.append(f"{format_seconds(progress.eta_s)} left")
    return parts
