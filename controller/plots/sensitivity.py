"""The sensitivity of a model's units as a heat map: a page that works offline, and a picture."""

import html
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from controller.plots.page import CONTENT_POLICY, STYLE
from controller.plots.picture import picture_text
from controller.sensitivity.report import Change, SensitivityReport, UnitSensitivity

Measure = Callable[[Change], float | None]

_MEASURES: tuple[tuple[str, str, Measure], ...] = (
    ("Loss of {metric}", "{:+.4f}", lambda change: change.loss),
    ("Divergence from the dense model (nats)", "{:.2g}", lambda change: change.kl_to_dense),
)
_MOST_WRITTEN = 800
"""Cells of a picture up to which values are written into them."""


def sensitivity_html(report: SensitivityReport) -> str:
    """The report as one page: losses and divergences of every single change, shaded, beside each unit's share.

    Args:
        report: The report.

    Returns:
        A whole HTML document without scripts; nothing is loaded from elsewhere, and all texts are escaped.
    """
    title = html.escape(f"{report.study}: sensitivity of {len(report.units)} units")
    body = "".join(
        (
            f"<header><h1>{title}</h1><p>{html.escape(summary_sentence(report))}</p>",
            "".join(f'<p class="soft">{html.escape(note)}</p>' for note in report.notes),
            "</header>",
            *(_heat_table(report, name, form, measure) for name, form, measure in _MEASURES),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def loss_section(report: SensitivityReport) -> str:
    """The losses that were measured as a section of another page, with the sentence that says how."""
    measured = {change.label for unit in report.units for change in unit.changes if change.examples}
    units = tuple(
        replace(unit, changes=tuple(change for change in unit.changes if change.label in measured))
        for unit in report.units
    )
    table = _heat_table(replace(report, units=units), *_MEASURES[0])
    return table.replace("</h2>", f"</h2><p>{html.escape(summary_sentence(report))}</p>", 1)


def summary_sentence(report: SensitivityReport) -> str:
    """What was measured, in a sentence or two."""
    counts = sorted({change.examples for unit in report.units for change in unit.changes if change.examples})
    on = f" on {' or '.join(str(count) for count in counts)} of {report.examples} examples" if counts else ""
    return (
        f"Each unit is changed alone and everything else left as in {report.reference} ({report.metric} "
        f"{report.reference_quality:.4f}): {report.scored} changes are scored{on}."
    )


def sensitivity_png(report: SensitivityReport) -> bytes:
    """The report as a PNG: two heat maps, units down and changes across; hatched where nothing was measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, units = report.columns, [unit for unit in report.units if unit.changes]
    height = min(60.0, 1.8 + 0.24 * max(4, len(units)))
    figure = Figure(figsize=(4.0 + 1.4 * max(3, len(columns)), height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(picture_text(f"{report.study}: sensitivity"), fontsize=13, x=0.01, ha="left")
    for axes, (name, form, measure) in zip(figure.subplots(1, 2, sharey=True), _MEASURES, strict=True):
        values = _matrix(units, columns, measure)
        axes.set_title(picture_text(name.format(metric=report.metric)), fontsize=10)
        axes.set_facecolor("#e8ebef")
        if units and columns:
            image = axes.imshow(np.sqrt(np.maximum(values, 0.0)), cmap="cividis", aspect="auto", vmin=0.0)
            scale = figure.colorbar(image, ax=axes, format=lambda root, _: f"{root * root:.3g}")
            scale.outline.set_visible(False)
            _write_values(axes, values, form)
        axes.set_xticks(range(len(columns)), [picture_text(label) for label in columns], rotation=45, ha="right")
        axes.set_yticks(range(len(units)), [picture_text(unit.name) for unit in units], fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _write_values(axes: Any, values: np.ndarray[Any, np.dtype[np.float64]], form: str) -> None:
    """Write values into cells, and hatch those without one."""
    from matplotlib.patches import Rectangle

    top = max(float(np.nanmax(values, initial=0.0)), 1e-12)
    for (row, column), value in np.ndenumerate(values):
        if math.isnan(value):
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="//", edgecolor="#c3c8ce", lw=0)
            )
        elif values.size <= _MOST_WRITTEN:
            shade = "#1b1f24" if max(value, 0.0) / top > 0.36 else "#ffffff"
            axes.text(column, row, form.format(value), ha="center", va="center", fontsize=7, color=shade)


def _matrix(
    units: list[UnitSensitivity], columns: tuple[str, ...], measure: Measure
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values by unit and column; NaN where there is none."""
    found = np.full((len(units), len(columns)), np.nan)
    place = {label: column for column, label in enumerate(columns)}
    for row, unit in enumerate(units):
        for change in unit.changes:
            value = measure(change)
            if value is not None and math.isfinite(value):
                found[row, place[change.label]] = value
    return found


def _heat_table(report: SensitivityReport, name: str, form: str, measure: Measure) -> str:
    values = [v for unit in report.units for change in unit.changes if (v := measure(change)) is not None]
    top = max([v for v in values if math.isfinite(v)], default=0.0)
    heads = ["share of latency", "share of size", *(["Fisher per weight"] if report.has_fisher else [])]
    cells = "".join(f"<th>{html.escape(text)}</th>" for text in (*heads, *report.columns))
    rows = "".join(_heat_row(report, unit, form, measure, top) for unit in report.units)
    heading = html.escape(name.format(metric=report.metric))
    return (
        f'<section><h2>{heading}</h2><p class="soft">The shade grows with the square root of the value; a dash was not '
        f'measured.</p><div class="scroll"><table class="map"><thead><tr><th class="name">unit</th>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _heat_row(report: SensitivityReport, unit: UnitSensitivity, form: str, measure: Measure, top: float) -> str:
    shares = [f"{unit.latency_share:.1%}", f"{unit.size_share:.1%}"]
    if report.has_fisher:
        shares.append("-" if unit.fisher_per_weight is None else f"{unit.fisher_per_weight:.3g}")
    by_label = {change.label: change for change in unit.changes}
    cells = "".join(f"<td>{text}</td>" for text in shares)
    cells += "".join(_heat_cells(report.columns, by_label, form, measure, top))
    return f"<tr><td>{html.escape(unit.name)}</td>{cells}</tr>"


def _heat_cells(
    columns: tuple[str, ...], by_label: dict[str, Change], form: str, measure: Measure, top: float
) -> Iterator[str]:
    for label in columns:
        change = by_label.get(label)
        value = None if change is None else measure(change)
        if change is None:
            yield "<td></td>"
        elif value is None or not math.isfinite(value):
            yield f'<td class="none" title="{html.escape(change.failure or "")}">-</td>'
        else:
            shade = math.sqrt(max(0.0, value) / top) if top > 0 else 0.0
            deep = " deep" if shade > 0.85 else ""
            low, high = change.loss_low or 0.0, change.loss_high or 0.0
            words = html.escape(f"loss {low:+.4f} to {high:+.4f} on {change.examples} examples")
            text = html.escape(form.format(value))
            yield f'<td class="heat{deep}" title="{words}"><b style="opacity:{shade:.2f}"></b><span>{text}</span></td>'
