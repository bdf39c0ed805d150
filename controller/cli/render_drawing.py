"""Shows a front as a drawing of quality against latency, 80 columns wide at most."""

from rich.console import Console

from controller.cli.drawing import Axis, Mark, draws_blocks, scatter
from controller.cli.text import clean, print_lines
from controller.results import FrontRow, SearchResult

_MOST_COLUMNS = 78
_LINES = 14


def render_drawing(console: Console, result: SearchResult) -> None:
    """Draw the front, the dense model and the uniform policies; nothing where no policy is on the front."""
    if not result.front:
        return
    for line in draw_front(result, width=min(_MOST_COLUMNS, console.width), blocks=draws_blocks(console.encoding)):
        print_lines(console, line)


def draw_front(result: SearchResult, *, width: int = _MOST_COLUMNS, blocks: bool = True) -> list[str]:
    """Return the front as lines of text.

    Args:
        result: A front with at least one member.
        width: Most characters of a line.
        blocks: Whether braille may be drawn.
    """
    front = sorted(result.front, key=lambda row: (row.latency_ms, row.quality))
    dense = [row for row in result.baselines if row.name == "dense"]
    near = [*front, *dense]
    x = Axis.around("latency (ms)", [row.latency_ms for row in near])
    y = Axis.around(clean(result.metric), [row.quality for row in near])
    others = [row for row in result.baselines if row not in dense and not _is_on(front, row)]
    seen = [row for row in others if 0 <= x.place(row.latency_ms) <= 1 and 0 <= y.place(row.quality) <= 1]
    picked = None if result.picked is None else result.picked.trial
    marks = [Mark(x=row.latency_ms, y=row.quality, letter="x") for row in seen]
    marks += [Mark(x=row.latency_ms, y=row.quality, letter="K" if row.knee else "o") for row in front]
    marks += [Mark(x=row.latency_ms, y=row.quality, letter="D") for row in dense]
    marks += [Mark(x=row.latency_ms, y=row.quality, letter="P") for row in front if row.trial == picked is not None]
    drawn = scatter(marks, _stairs(front), x, y, width=max(30, width), height=_LINES, blocks=blocks)
    return [*drawn, _legend(result, seen=len(seen), outside=len(others) - len(seen))]


def _is_on(front: list[FrontRow], row: FrontRow) -> bool:
    return any(member.policy_digest == row.policy_digest for member in front)


def _stairs(front: list[FrontRow]) -> list[tuple[float, float]]:
    """The edge of what the front dominates: the best quality that each latency buys."""
    corners: list[tuple[float, float]] = []
    best: float | None = None
    for row in front:
        if best is not None and row.quality <= best:
            continue
        if best is not None:
            corners.append((row.latency_ms, best))
        corners.append((row.latency_ms, row.quality))
        best = row.quality
    return corners


def _legend(result: SearchResult, *, seen: int, outside: int) -> str:
    parts = ["o front", "K knee", "D dense", *(["x uniform"] if seen else [])]
    if result.picked is not None:
        parts.append("P picked")
    if outside:
        parts.append(f"{outside} uniform {'policy' if outside == 1 else 'policies'} outside")
    return "; ".join(parts)
