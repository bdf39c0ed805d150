"""A plot as SVG within a page that has no scripts: axes with round ticks, step lines, and marks with tooltips."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 860, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 14, 52
_TICKS = 6

SVG_STYLE = """
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 13px; }
svg .grid { stroke: var(--grid); } svg .line { fill: none; stroke-width: 2; } svg .mark { stroke: var(--page); }
.keys svg { display: inline-block; width: 26px; height: 12px; margin-right: 6px; vertical-align: -1px; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point of a plot.

    Attributes:
        x: Where it lies.
        y: Likewise.
        words: What a tooltip says.
        hollow: Whether it is drawn as a ring.
    """

    x: float
    y: float
    words: str
    hollow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points that belong together.

    Attributes:
        name: What the key says.
        colour: A colour, or a variable of the page's style ("var(--front)").
        marks: The points.
        line: Whether steps run along those that none beats, larger y and smaller x being better.
        dashed: Whether the line is dashed.
    """

    name: str
    colour: str
    marks: tuple[Mark, ...]
    line: bool = True
    dashed: bool = False

    @property
    def staircase(self) -> tuple[Mark, ...]:
        """Marks that none beats, by rising x."""
        found: list[Mark] = []
        for mark in sorted(self.marks, key=lambda m: (m.x, -m.y)):
            if not found or mark.y > found[-1].y:
                found.append(mark)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        step = 10 ** math.floor(math.log10((self.high - self.low) / _TICKS))
        step *= next((factor for factor in (1, 2, 5) if (self.high - self.low) / (step * factor) <= _TICKS), 10)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]


def scatter_svg(series: Sequence[Series], *, x: str, y: str) -> str:
    """Draw series as one SVG element; empty without a point.

    Args:
        series: The series, later ones on top.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
    """
    marks = [mark for entry in series for mark in entry.marks]
    if not marks:
        return ""
    across = _axis([mark.x for mark in marks], _LEFT, _WIDTH - _RIGHT)
    up = _axis([mark.y for mark in marks], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        *(_tick(across.at(value), f"{value:.6g}", upright=True) for value in across.ticks),
        *(_tick(up.at(value), f"{value:.6g}", upright=False) for value in up.ticks),
        f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">{html.escape(x)}</text>',
        f'<text transform="translate(16 {_HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{html.escape(y)}</text>',
        *(_steps(entry, across, up) for entry in series if entry.line),
        *(_dot(mark, entry.colour, across, up) for entry in series for mark in entry.marks),
    ]
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def key_html(series: Sequence[Series]) -> str:
    """Return the key of a plot."""
    found = []
    for entry in series:
        dash = ' stroke-dasharray="5 4"' if entry.dashed else ""
        line = f'<path d="M0 6H26" stroke="{entry.colour}" stroke-width="2"{dash}/>' if entry.line else ""
        hollow = all(mark.hollow for mark in entry.marks)
        found.append(
            f'<span><svg viewBox="0 0 26 12">{line}<circle cx="13" cy="6" r="4" {_fill(entry.colour, hollow=hollow)}/>'
            f"</svg>{html.escape(entry.name)}</span>"
        )
    return f'<div class="keys">{"".join(found)}</div>'


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return _Axis(low - margin, high + margin, start, end)


def _tick(at: float, text: str, *, upright: bool) -> str:
    if upright:
        return (
            f'<path class="grid" d="M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
            f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{text}</text>'
        )
    return (
        f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _steps(series: Series, across: _Axis, up: _Axis) -> str:
    first, *rest = series.staircase
    path = f"M{across.at(first.x):.1f} {up.at(first.y):.1f}"
    path += "".join(f"H{across.at(mark.x):.1f}V{up.at(mark.y):.1f}" for mark in rest)
    dash = ' stroke-dasharray="5 4"' if series.dashed else ""
    return f'<path class="line" stroke="{series.colour}"{dash} d="{path}"/>'


def _dot(mark: Mark, colour: str, across: _Axis, up: _Axis) -> str:
    return (
        f'<circle class="mark" cx="{across.at(mark.x):.1f}" cy="{up.at(mark.y):.1f}" r="5" '
        f"{_fill(colour, hollow=mark.hollow)}><title>{html.escape(mark.words)}</title></circle>"
    )


def _fill(colour: str, *, hollow: bool) -> str:
    return f'style="fill:var(--page);stroke:{colour};stroke-width:2"' if hollow else f'style="fill:{colour}"'
