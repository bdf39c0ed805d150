"""A policy as a picture for the model card: a bar for each unit, as long as what it keeps, shaded by bits."""

from __future__ import annotations

from html import escape

from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure

_ROW, _NAME, _BAR, _FORMAT = 18, 260, 240, 90
_SHADES = ((4, "#d55e00"), (8, "#0072b2"), (16, "#56b4e9"), (32, "#999999"))
"""Most bits of a weight to a colour that those who do not tell red from green tell apart."""


def draw_policy(structure: ModelStructure, policy: Policy) -> str:
    """Draw a policy as SVG, the units from the input on; the text says all that the colours say."""
    rows = [_row(at, unit.name, unit.groups, policy[unit.name]) for at, unit in enumerate(structure.units)]
    width, height = _NAME + _BAR + _FORMAT, _ROW * len(rows) + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" role="img"><title>What each unit keeps, and in which format</title>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(rows)}</svg>\n'
    )


def _row(at: int, name: str, groups: int, choice: Choice) -> str:
    top, share = at * _ROW + 2, choice.keep / groups
    text = f"{choice.keep}/{groups} {choice.format}" if choice.keep else "left out"
    return (
        f'<text x="{_NAME - 8}" y="{top + 12}" text-anchor="end" fill="#222222">{escape(name)}</text>'
        f'<rect x="{_NAME}" y="{top}" width="{_BAR}" height="{_ROW - 4}" fill="#eeeeee"/>'
        f'<rect x="{_NAME}" y="{top}" width="{_BAR * share:.1f}" height="{_ROW - 4}" fill="{_shade(choice)}"/>'
        f'<text x="{_NAME + _BAR + 6}" y="{top + 12}" fill="#222222">{escape(text)}</text>'
    )


def _shade(choice: Choice) -> str:
    bits = FORMATS.get(choice.format).weight_bits
    return next((shade for most, shade in _SHADES if bits <= most), _SHADES[-1][1])
