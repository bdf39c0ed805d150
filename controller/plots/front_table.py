"""A front for notebooks: a drawing and a table in one piece of HTML that needs no script and no network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from controller.results import FrontRow, SearchResult
from controller.study_view import number, size_text

_WIDTH, _HEIGHT, _MARGIN = 460, 240, 46
_FRONT, _OTHER = "#0072b2", "#8b939c"


def front_to_html(result: SearchResult) -> str:
    """Return a front as HTML: quality against latency, and a row for each member and baseline.

    Args:
        result: What a search found.

    Returns:
        One element; every text is escaped.
    """
    count = len(result.front)
    title = f"{result.study}: {count} {'policy' if count == 1 else 'policies'} on the front"
    volume = "" if result.hypervolume is None else f", hypervolume {result.hypervolume:.4f}"
    rows = [*result.front, *(row for row in result.baselines if not _is_on(result.front, row))]
    body = "".join(_row(row, on_front=index < count) for index, row in enumerate(rows))
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in _heads(result))
    lines = [] if result.picked is None else [f"picked {result.picked.explanation}", result.picked.warning]
    picked = "".join(f"<p>{html.escape(line)}</p>" for line in lines if line)
    note = f"<p>{html.escape(result.latency_sentence)}</p>" if result.latency_sentence else ""
    return (
        f"<div><p><b>{html.escape(title)}</b>{html.escape(volume)}</p>{_drawing(result, rows)}"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{note}{picked}</div>"
    )


def _is_on(front: Sequence[FrontRow], row: FrontRow) -> bool:
    return any(member.policy_digest == row.policy_digest for member in front)


def _heads(result: SearchResult) -> tuple[str, ...]:
    return "policy", result.metric, "holdout", "latency", "of dense", "size", "on the front"


def _row(row: FrontRow, *, on_front: bool) -> str:
    cells = (
        row.label,
        f"{row.quality:.4f}",
        "" if row.holdout_quality is None else f"{row.holdout_quality:.4f}",
        f"{number(row.latency_ms)} ms",
        f"{row.latency_ratio:.2f}",
        size_text(row.size_bytes),
        "yes" if on_front else "no",
    )
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _drawing(result: SearchResult, rows: Sequence[FrontRow]) -> str:
    if not rows:
        return ""
    places = _places(rows)
    marks = []
    for index, (row, (x, y)) in enumerate(zip(rows, places, strict=True)):
        colour = _FRONT if index < len(result.front) else _OTHER
        tip = f"{row.name}: {row.quality:.4f}, {number(row.latency_ms)} ms, {size_text(row.size_bytes)}"
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{html.escape(tip)}</title></circle>'
        )
    floor, right = _HEIGHT - _MARGIN, _WIDTH - 8
    low, high = (extreme(row.latency_ms for row in rows) for extreme in (min, max))
    worst, best = (extreme(row.quality for row in rows) for extreme in (min, max))
    texts = (
        _text(_MARGIN, floor + 18, "start", f"{number(low)} ms"),
        _text(right, floor + 18, "end", f"{number(high)} ms"),
        _text(right, floor + 36, "end", "latency"),
        _text(_MARGIN - 4, floor, "end", f"{worst:.3f}"),
        _text(_MARGIN - 4, 20, "end", f"{best:.3f}"),
        _text(_MARGIN, 10, "start", result.metric),
    )
    axes = f'<path d="M{_MARGIN} 14V{floor}H{right}" fill="none" stroke="currentColor"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">'
        f"{axes}{''.join(marks)}{''.join(texts)}</svg>"
    )


def _text(x: float, y: float, anchor: str, text: str) -> str:
    place = f'x="{x}" y="{y}" text-anchor="{anchor}"'
    return f'<text {place} font-size="11" fill="currentColor">{html.escape(text)}</text>'


def _places(rows: Sequence[FrontRow]) -> list[tuple[float, float]]:
    """Where the rows lie in the drawing, in its own units."""
    latencies, qualities = [row.latency_ms for row in rows], [row.quality for row in rows]
    x_low, y_low = min(latencies), min(qualities)
    x_scale = (_WIDTH - _MARGIN - 24) / ((max(latencies) - x_low) or 1.0)
    y_scale = (_HEIGHT - _MARGIN - 32) / ((max(qualities) - y_low) or 1.0)
    return [
        (_MARGIN + 8 + (x - x_low) * x_scale, _HEIGHT - _MARGIN - 8 - (y - y_low) * y_scale)
        for x, y in zip(latencies, qualities, strict=True)
    ]
