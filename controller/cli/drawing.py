"""Draws with characters: bars, sparklines, and a front as a scatter in braille. Nothing is coloured here."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_ROWS, _COLUMNS = len(_DOTS), len(_DOTS[0])


def draws_blocks(encoding: str | None) -> bool:
    """Whether an encoding has blocks and braille; without them plain letters are drawn."""
    return (encoding or "").lower().replace("-", "").replace("_", "").startswith("utf")


def bar(share: float, *, width: int, blocks: bool = True) -> str:
    """Draw a share of a width, padded to that width.

    Args:
        share: 0 to 1; what lies beyond is drawn as the nearer end.
        width: Characters of the whole.
        blocks: Whether eighths of a block may be used.
    """
    share = min(1.0, max(0.0, share))
    if not blocks:
        return ("#" * round(share * width)).ljust(width)
    whole, rest = divmod(round(share * width * 8), 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)


def sparkline(values: Sequence[float], *, width: int, blocks: bool = True) -> str:
    """Draw values as one line of bars, the newest at the right.

    Args:
        values: Finite values in order; more than fit are thinned out evenly, the first and the last stay.
        width: Most characters.
        blocks: Whether blocks may be used; else figures from 0 to 9 stand for the heights.
    """
    if not values or width < 1:
        return ""
    if len(values) > width:
        step = (len(values) - 1) / max(1, width - 1)
        values = [values[round(index * step)] for index in range(width)]
    low, high = min(values), max(values)
    levels = _LEVELS if blocks else "0123456789"
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[round((value - low) * scale)] for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point with a letter.

    Attributes:
        x: Its place along the horizontal axis.
        y: Its place along the vertical axis.
        letter: One character.
    """

    x: float
    y: float
    letter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis: what it shows, and from where to where.

    Attributes:
        title: Name and unit.
        low: Value at the left or at the bottom.
        high: Value at the other end, above `low`.
    """

    title: str
    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1; beyond that outside the axis."""
        return (value - self.low) / (self.high - self.low)

    @classmethod
    def around(cls, title: str, values: Iterable[float], *, margin: float = 0.06) -> "Axis":
        """Return an axis with a margin around all values."""
        found = list(values)
        low, high = min(found), max(found)
        room = margin * (high - low) or 0.05 * abs(high) or 0.05
        return cls(title=title, low=low - room, high=high + room)


def scatter(
    marks: Sequence[Mark],
    line: Sequence[tuple[float, float]],
    x: Axis,
    y: Axis,
    *,
    width: int,
    height: int,
    blocks: bool,
) -> list[str]:
    """Draw marks over a line, with both axes.

    Args:
        marks: Points; of several in one place the last is seen. Those outside the axes are left out.
        line: Corners of a line from left to right, drawn in dots below the marks.
        x: Horizontal axis.
        y: Vertical axis.
        width: Characters of the whole drawing, 30 or more.
        height: Lines of the field.
        blocks: Whether braille and box drawing may be used.

    Returns:
        Lines, none wider than `width`.
    """
    labels = [_figure(y.low + (y.high - y.low) * (1 - row / (height - 1))) for row in range(height)]
    gutter = max(map(len, labels))
    columns = width - gutter - 2
    field = _field(line, x, y, columns=columns, height=height, blocks=blocks)
    for mark in marks:
        column, row = round(x.place(mark.x) * (columns - 1)), round((1 - y.place(mark.y)) * (height - 1))
        if 0 <= column < columns and 0 <= row < height:
            field[row][column] = mark.letter
    side, corner, floor = ("│", "└", "─") if blocks else ("|", "+", "-")
    shown = {0, height // 2, height - 1}
    lines = [y.title[:width]]
    lines += [
        f"{(labels[row] if row in shown else '').rjust(gutter)} {side}{''.join(cells)}".rstrip()
        for row, cells in enumerate(field)
    ]
    lines.append(" " * (gutter + 1) + corner + floor * columns)
    return [*lines, " " * (gutter + 2) + _ticks(x, columns), " " * (gutter + 2) + x.title[:columns].rjust(columns)]


def _ticks(axis: Axis, columns: int) -> str:
    left, middle, right = (_figure(axis.low + share * (axis.high - axis.low)) for share in (0.0, 0.5, 1.0))
    line = left.ljust(columns // 2 - len(middle) // 2) + middle
    return line + right.rjust(columns - len(line))


def _field(
    line: Sequence[tuple[float, float]], x: Axis, y: Axis, *, columns: int, height: int, blocks: bool
) -> list[list[str]]:
    """The line in dots: braille has two by four of them in a character."""
    dots = [[0] * columns for _ in range(height)]
    wide, high = columns * _COLUMNS - 1, height * _ROWS - 1
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        start, end = ((x.place(x0) * wide, (1 - y.place(y0)) * high), (x.place(x1) * wide, (1 - y.place(y1)) * high))
        steps = max(1, math.ceil(max(abs(end[0] - start[0]), abs(end[1] - start[1]))))
        for step in range(steps + 1):
            column, row = (round(a + (b - a) * step / steps) for a, b in zip(start, end, strict=True))
            if 0 <= column <= wide and 0 <= row <= high:
                dots[row // _ROWS][column // _COLUMNS] |= _DOTS[row % _ROWS][column % _COLUMNS]
    return [[(chr(_BRAILLE + cell) if blocks else ".") if cell else " " for cell in row] for row in dots]


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"
