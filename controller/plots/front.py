"""The front of a study as a page that works offline, and as a picture."""

import html
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from controller.plots.page import page
from controller.study_view import PointRole, PointState, PointView, StudyView, number, size_text

if TYPE_CHECKING:  # matplotlib takes most of a second to import
    from matplotlib.axes import Axes

PICTURE_COLOURS = {
    "infeasible": "#c3c8ce",
    "pruned": "#c3c8ce",
    "other": "#8b939c",
    "uniform": "#e69f00",
    "front": "#0072b2",
    "dense": "#d55e00",
}
"""Okabe and Ito's colours, told apart with any colour vision; the same as the page's."""


def front_html(view: StudyView) -> str:
    """The study as one page: quality against latency, hypervolume, the front as a table, policies unit by unit.

    Args:
        view: The study.

    Returns:
        HTML of about 5 MB: plotly stands in it, nothing is loaded from elsewhere, and all texts are escaped.
    """
    from plotly.offline import get_plotlyjs

    points = [p for p in view.points if p.drawable]
    return page(title=view.title, body=_body(view, points), data=_page_data(view, points), plotly=get_plotlyjs())


def front_png(view: StudyView) -> bytes:
    """The study as a PNG: quality against latency, and the hypervolume below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 7.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1))
    figure.suptitle(picture_text(view.title), fontsize=13, x=0.01, ha="left")
    _draw_scatter(top, view)
    steps = range(1, len(view.hypervolume_by_trial) + 1)
    bottom.step(steps, view.hypervolume_by_trial, where="post", color=PICTURE_COLOURS["front"])
    bottom.set(xlabel="finished trials", ylabel="hypervolume")
    for axes in (top, bottom):
        axes.grid(color="#e8ebef")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def front_line(front: Sequence[PointView]) -> list[PointView]:
    """Members of a front that none beats in quality and latency alone, fastest first.

    With size as a third objective a front has members that look dominated in the plane; the line leaves them out.

    Args:
        front: Members, fastest first.
    """
    found: list[PointView] = []
    best = -math.inf
    for point in front:
        if point.quality is not None and point.quality > best:
            found.append(point)
            best = point.quality
    return found


def _kind(point: PointView) -> str:
    if point.role is PointRole.BASELINE:
        return "dense" if point.name == "dense" else "uniform"
    if point.on_front:
        return "front"
    if point.state is PointState.PRUNED:
        return "pruned"
    return "other" if point.feasible else "infeasible"


def _page_data(view: StudyView, points: list[PointView]) -> dict[str, Any]:
    units = list(dict.fromkeys(unit for p in points for unit in p.policy))
    used = {choice.format: choice.weight_bits for p in points for choice in p.policy.values()}
    formats = sorted(used.items(), key=lambda entry: (-entry[1], entry[0]))
    number_of = {name: index for index, (name, _) in enumerate(formats)}
    line = front_line(view.front)
    headline = view.headline
    return {
        "metric": html.escape(view.metric),
        "min_quality": view.bounds.min_quality,
        "max_latency_ms": view.bounds.max_latency_ms,
        "points": [_point_data(view, p, units, number_of) for p in points],
        "line": {"x": [p.latency_ms for p in line], "y": [p.quality for p in line]},
        "near": _near(view),
        "knee": next(({"x": p.latency_ms, "y": p.quality} for p in view.front if p.knee), None),
        "volume": [v if math.isfinite(v) else None for v in view.hypervolume_by_trial],
        "units": units,
        "rows": _unit_rows(units),
        "formats": [{"name": name, "bits": bits} for name, bits in formats],
        "chosen": next((i for i, p in enumerate(points) if p is headline), None),
    }


def _point_data(view: StudyView, point: PointView, units: list[str], formats: dict[str, int]) -> dict[str, Any]:
    quality = point.quality or 0.0
    hover = [
        f"<b>{html.escape(point.label)}</b>",
        f"quality {point.quality_text}",
        f"latency {number(point.latency_ms)} ms",
        f"size {size_text(point.size_bytes)}",
        *(f"{head} {text}" for head, text in zip(view.further_headings, view.further_texts(point), strict=True)),
        html.escape(point.policy_summary),
    ]
    scores = f"quality {point.quality_text}, {number(point.latency_ms)} ms, {size_text(point.size_bytes)}"
    choices = (point.policy.get(unit) for unit in units)
    return {
        "kind": _kind(point),
        "name": point.name,
        "label": html.escape(point.name),
        "x": point.latency_ms,
        "y": quality,
        "up": None if point.quality_high is None else point.quality_high - quality,
        "down": None if point.quality_low is None else quality - point.quality_low,
        "hover": "<br>".join(hover),
        "scores": f"{scores}. {point.policy_summary[0].upper()}{point.policy_summary[1:]}.",
        "policy": [None if c is None else [c.keep, c.groups, formats[c.format]] for c in choices],
    }


def _unit_rows(units: list[str]) -> list[dict[str, Any]]:
    """Put units of one sort into one strip: those whose last part of the name occurs more than once."""
    sorts: dict[str, list[int]] = {}
    for index, unit in enumerate(units):
        sorts.setdefault(unit.rpartition(".")[2], []).append(index)
    if len(sorts) > 6 or len(sorts) == len(units):
        return [{"name": "all units", "units": list(range(len(units)))}]
    return [{"name": name, "units": indices} for name, indices in sorts.items()]


def _near(view: StudyView) -> dict[str, list[float]] | None:
    """Ranges around the line of the front and the dense model, with a margin; None without a front."""
    line = front_line(view.front)
    if not line:
        return None
    ranges = {}
    for name, values in (
        ("x", [*(p.latency_ms or 0.0 for p in line), view.dense_latency_ms]),
        ("y", [*(p.quality or 0.0 for p in line if p.feasible), line[-1].quality or 0.0, view.dense_quality]),
    ):
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
        ranges[name] = [low - margin, high + margin]
    return ranges


def _body(view: StudyView, points: list[PointView]) -> str:
    index = {id(point): at for at, point in enumerate(points)}
    bounds = "; ".join(view.bounds.texts(view.metric))
    rows = [*_rows(view, view.front, index)]
    base = [*_rows(view, [p for p in view.baselines if p not in view.front], index)]
    zoom = '<button id="zoom" type="button">Zoom to the front</button>' if view.front else ""
    parts = [
        f"<header><h1>{html.escape(view.title)}</h1><p>{html.escape(view.result_sentence)}</p>",
        f'<p class="soft">Constraints: {html.escape(bounds)}.</p>' if bounds else "",
        f"<p><code>{html.escape(view.export_command)}</code></p></header>",
        f'<section><div class="head"><h2>Quality against latency</h2>{zoom}</div><div id="scatter"></div></section>',
        '<section><h2>Policy</h2><div id="policy"><p class="soft hint">Choose a point or a row to see its policy '
        "unit by unit.</p></div></section>",
        _table(view, "Front", rows),
        _table(view, "Baselines", base),
        _holdout(view),
        f'<section><h2>Hypervolume</h2><p class="soft">{html.escape(view.hypervolume_sentence)}</p>'
        '<div id="volume"></div></section>'
        if view.hypervolume_by_trial
        else "",
    ]
    return "\n".join(part for part in parts if part)


def _table(view: StudyView, heading: str, rows: list[str]) -> str:
    if not rows:
        return f'<section><h2>{heading}</h2><p class="soft">None yet.</p></section>'
    metric = "" if view.task_metric is None else f"<th>{html.escape(view.task_metric)} on holdout</th>"
    further = "".join(f"<th>{heading}</th>" for heading in view.further_headings)
    head = (
        f"<tr><th>policy</th><th>{html.escape(view.metric)}</th><th>holdout</th><th>gap</th>{metric}"
        f"<th>latency (ms)</th><th>times dense</th><th>size</th><th>times dense</th>{further}"
        '<th class="words">constraints</th></tr>'
    )
    return (
        f'<section><h2>{heading}</h2><div class="scroll"><table><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _holdout(view: StudyView) -> str:
    """What examples that the search never saw say of the front; nothing before they are scored."""
    if view.holdout_check is None:
        return ""
    lines = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in view.holdout_check.sentences)
    return f"<section><h2>On the holdout</h2><ul>{lines}</ul></section>"


def _rows(view: StudyView, points: Sequence[PointView], index: dict[int, int]) -> Iterator[str]:
    for point in points:
        latency, size = point.latency_ms or 0.0, point.size_bytes or 0
        numbers = (
            point.quality_text,
            point.holdout_text,
            point.gap_text,
            *(() if view.task_metric is None else (point.holdout_metric_text,)),
            number(latency),
            f"{latency / view.dense_latency_ms:.2f}",
            size_text(point.size_bytes),
            f"{size / view.dense_size_bytes:.2f}",
            *view.further_texts(point),
        )
        cells = "".join(f"<td>{html.escape(text)}</td>" for text in numbers)
        words = "met" if point.feasible else "not met"
        best = ' class="best"' if point is view.headline else ""
        yield (
            f'<tr{best} tabindex="0" data-point="{index[id(point)]}"><td>{html.escape(point.label)}</td>{cells}'
            f'<td class="words">{words}</td></tr>'
        )


def _draw_scatter(axes: "Axes", view: StudyView) -> None:
    markers = {"infeasible": ".", "pruned": "x", "other": "o", "uniform": "D", "front": "o", "dense": "*"}
    sizes = {"infeasible": 30, "pruned": 16, "other": 18, "uniform": 40, "front": 44, "dense": 150}
    names = {
        "infeasible": "outside the constraints",
        "pruned": "stopped early",
        "other": "other trials",
        "uniform": "uniform policies",
        "front": "front",
        "dense": "dense model",
    }
    line = front_line(view.front)
    colour = PICTURE_COLOURS["front"]
    axes.step([p.latency_ms or 0 for p in line], [p.quality or 0 for p in line], where="post", color=colour, zorder=2)
    for kind, name in names.items():
        points = [p for p in view.points if p.drawable and _kind(p) == kind]
        if points:
            x, y = [p.latency_ms or 0 for p in points], [p.quality or 0 for p in points]
            look: dict[str, Any] = {"s": sizes[kind], "color": PICTURE_COLOURS[kind], "marker": markers[kind]}
            axes.scatter(x, y, label=name, zorder=3, linewidths=0.8, **look)
        for point in points:
            if kind not in ("uniform", "dense") and not point.knee:
                continue
            axes.annotate(
                picture_text(point.label if kind != "front" else "knee"),
                (point.latency_ms or 0, point.quality or 0),
                xytext=(7, -3),
                textcoords="offset points",
                fontsize=8,
                color="#5b6470",
            )
    axes.set(xlabel="latency (ms)", ylabel=picture_text(view.metric))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, ncols=6, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)


def picture_text(text: str) -> str:
    """A text that matplotlib draws as it is: no formulas, no glyph that its font lacks, at most 120 characters."""
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    known = "".join(c if ord(c) in glyphs and c.isprintable() else "?" for c in text[:120])
    return known.replace("$", r"\$")
