"""Curves of hypervolume over evaluations, as PNG and as an HTML file that needs no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from benchmarks.search_runs import Curve

# Okabe and Ito's palette, which people with colour-blindness can tell apart.
_COLOURS = {
    "frontier": "#000000",
    "tpe": "#0072b2",
    "multivariate tpe": "#56b4e9",
    "nsga2": "#d55e00",
    "gp": "#009e73",
    "random": "#999999",
}
_SIZE = (860, 460)


def draw_curves(curves: Sequence[Curve], stem: Path) -> None:
    """Write stem.png and stem.html.

    Args:
        curves: One for each sampler and seed.
        stem: Path without a suffix.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    stem.parent.mkdir(exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(8.6, 4.6))
    named: set[str] = set()
    for curve in curves:
        label = curve.sampler if curve.sampler not in named else None
        named.add(curve.sampler)
        width = 2.0 if curve.sampler == "frontier" else 1.0
        points = [point for point in curve.points if point[0] >= 1]
        axes.step(
            [cost for cost, _ in points],
            [volume for _, volume in points],
            where="post",
            color=_COLOURS[curve.sampler],
            linewidth=width,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_xlabel("evaluations (probes counted by their share of the examples)")
    axes.set_ylabel("hypervolume")
    axes.legend()
    figure.tight_layout()
    figure.savefig(stem.with_suffix(".png"), dpi=110)
    figure.savefig(stem.with_suffix(".svg"))
    pyplot.close(figure)
    drawing = stem.with_suffix(".svg").read_text(encoding="utf-8")
    stem.with_suffix(".svg").unlink()
    title = html.escape(stem.name)
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title>{drawing[drawing.index('<svg') :]}"
    stem.with_suffix(".html").write_text(page, encoding="utf-8")
