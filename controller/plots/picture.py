"""The front of a study as a picture."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from controller.results import policy_label
from controller.study_view import PointRole, PointState, PointView, StudyView

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


def kind_of(point: PointView) -> str:
    """Which kind of mark a point gets: a key of `PICTURE_COLOURS`."""
    if point.role is PointRole.BASELINE:
        return "dense" if point.name == "dense" else "uniform"
    if point.on_front:
        return "front"
    if point.state is PointState.PRUNED:
        return "pruned"
    return "other" if point.feasible else "infeasible"


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
    _draw_intervals(axes, view)
    for kind, name in names.items():
        points = [p for p in view.points if p.drawable and kind_of(p) == kind]
        if points:
            x, y = [p.latency_ms or 0 for p in points], [p.quality or 0 for p in points]
            look: dict[str, Any] = {"s": sizes[kind], "color": PICTURE_COLOURS[kind], "marker": markers[kind]}
            axes.scatter(x, y, label=name, zorder=3, linewidths=0.8, **look)
        for point in points:
            if kind not in ("uniform", "dense") and not point.knee:
                continue
            axes.annotate(
                picture_text("knee" if kind == "front" else policy_label(point.name, None, knee=point.knee)),
                (point.latency_ms or 0, point.quality or 0),
                xytext=(7, -3),
                textcoords="offset points",
                fontsize=8,
                color="#5b6470",
            )
    axes.set(xlabel="latency (ms)", ylabel=picture_text(view.metric))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, ncols=6, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)


def _draw_intervals(axes: "Axes", view: StudyView) -> None:
    for point in view.points:
        low, high = point.quality_low, point.quality_high
        if point.drawable and low is not None and high is not None:
            colour = PICTURE_COLOURS[kind_of(point)]
            axes.vlines(point.latency_ms or 0, low, high, color=colour, linewidth=1, alpha=0.7, zorder=2)


def picture_text(text: str) -> str:
    """A text that matplotlib draws as it is: no formulas, no glyph that its font lacks, at most 120 characters."""
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    known = "".join(c if ord(c) in glyphs and c.isprintable() else "?" for c in text[:120])
    return known.replace("$", r"\$")
