"""The live picture of a search: its front so far, how fast it goes, and what failed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from controller.cli.drawing import sparkline
from controller.cli.text import clean, format_ms, format_seconds, format_size
from controller.results import FrontPoint, Progress

_MOST_MEMBERS = 10
_SPARKS = 40
_LEAST_SECONDS = 2.0
_KEPT = 4096


@dataclass(slots=True)
class SearchPace:
    """What records of a search say together: how the hypervolume grew, and how fast trials and examples go.

    Attributes:
        hypervolumes: Hypervolume after each record in which trials were done, thinned out where they are many.
    """

    hypervolumes: list[float] = field(default_factory=list)
    _first: Progress | None = None
    _last: Progress | None = None

    def add(self, progress: Progress) -> None:
        """Take a record; only those of the search itself count."""
        if not progress.trials_total:
            return
        if self._first is None:
            self._first = progress
        new = self._last is None or progress.trials_done != self._last.trials_done
        if progress.hypervolume is not None and (new or not self.hypervolumes):
            self.hypervolumes.append(progress.hypervolume)
            if len(self.hypervolumes) > _KEPT:
                self.hypervolumes = self.hypervolumes[::2]
        self._last = progress

    @property
    def rates(self) -> tuple[float, float] | None:
        """Trials a minute and examples a second since the first record; None before there is enough to tell."""
        if self._first is None or self._last is None:
            return None
        seconds = self._last.elapsed_s - self._first.elapsed_s
        if seconds < _LEAST_SECONDS:
            return None
        trials = self._last.trials_done - self._first.trials_done
        return 60 * trials / seconds, (self._last.examples_done - self._first.examples_done) / seconds

    @property
    def text(self) -> str:
        """The rates in words; empty before they are known."""
        if self.rates is None:
            return ""
        trials, examples = self.rates
        return f"{trials:.1f} trials/min, {examples:,.0f} examples/s"


def picture(progress: Progress, pace: SearchPace, *, blocks: bool) -> Group:
    """Draw a record.

    Args:
        progress: The newest record.
        pace: What the records so far say together.
        blocks: Whether blocks may be drawn.
    """
    parts: list[RenderableType] = [_head(progress)]
    if progress.front:
        parts.append(_front_table(progress.front))
    lines = [_hypervolume(progress, pace, blocks=blocks), *_pace_lines(progress, pace)]
    if progress.best is not None:
        lines.append(f"best: {clean(progress.best)}")
    parts += [Text(f"  {line}") for line in lines if line]
    if progress.failures:
        failed = ", ".join(f"{count} {clean(reason)}" for reason, count in progress.failures.items())
        parts.append(Text(f"  failed: {failed}", style="yellow"))
    elif progress.failed:
        parts.append(Text(f"  {progress.failed} failed", style="yellow"))
    return Group(*parts)


def _head(progress: Progress) -> Table:
    head = Table.grid(padding=(0, 1))
    row: list[Text | ProgressBar] = [Text(clean(progress.stage), style="bold")]
    if progress.trials_total:
        row.append(ProgressBar(total=progress.trials_total, completed=progress.trials_done, width=30))
        row.append(Text(progress.trials_text))
    row.append(Text(format_seconds(progress.elapsed_s), style="dim"))
    head.add_row(*row)
    return head


def _front_table(front: Sequence[FrontPoint]) -> Table:
    """The front by falling latency; of many members some that are spread over it."""
    shown = front
    if len(front) > _MOST_MEMBERS:
        step = (len(front) - 1) / (_MOST_MEMBERS - 1)
        shown = [front[round(index * step)] for index in range(_MOST_MEMBERS)]
    title = f"front so far: {len(front)} {'member' if len(front) == 1 else 'members'}"
    table = Table(
        title=Text(title + (f", {len(shown)} shown" if len(shown) < len(front) else "")), title_justify="left"
    )
    table.add_column(Text("policy"))
    for heading in ("quality", "latency", "size"):
        table.add_column(Text(heading), justify="right")
    for point in shown:
        cells = (
            clean(point.name, most=30),
            f"{point.quality:.4f}",
            format_ms(point.latency_ms),
            format_size(point.size_bytes),
        )
        table.add_row(*map(Text, cells))
    return table


def _hypervolume(progress: Progress, pace: SearchPace, *, blocks: bool) -> str:
    if progress.hypervolume is None:
        return ""
    return (
        f"hypervolume {progress.hypervolume:.4f} {sparkline(pace.hypervolumes, width=_SPARKS, blocks=blocks)}".rstrip()
    )


def _pace_lines(progress: Progress, pace: SearchPace) -> list[str]:
    left = "" if progress.eta_s is None else f"{format_seconds(progress.eta_s)} left"
    found = ", ".join(part for part in (pace.text, left) if part)
    return [found] if found else []
