"""Where the time of a policy goes as stacked bars: a page that works offline, and a picture."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator

from controller.explanation.report import ExplainReport, TimeRow
from controller.plots.page import CONTENT_POLICY, STYLE
from controller.plots.picture import picture_text
from controller.results import EXTRAPOLATED
from controller.study_view import number

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#d55e00", "#cc79a7", "#f0e442", "#8b939c")
"""Okabe and Ito's, one for each sort of operator; the last one for all that are left and for what is no operator."""

_STYLE = """
.times { display: grid; grid-template-columns: minmax(120px, max-content) 1fr max-content; gap: 3px 12px;
  align-items: center; font-size: 13px; font-variant-numeric: tabular-nums; }
.times .bar2 { display: flex; height: 12px; background: none; } .times .bar2 i { display: block; height: 100%;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; } .times .pale { opacity: .4; height: 6px; }
.times .gap { grid-column: 1 / -1; height: 4px; } tbody tr { cursor: auto; } tr.whole td { font-weight: 600; }
"""


def explain_html(report: ExplainReport) -> str:
    """The report as one page: a bar for each unit above that of the dense model, sentences, and all figures.

    Args:
        report: The report.

    Returns:
        A whole HTML document without scripts; nothing is loaded from elsewhere, and all texts are escaped.
    """
    title = html.escape(_title(report))
    lines = [*_warnings(report), *report.sentences, *(finding.sentence for finding in report.findings)]
    lines += [report.verdict] if report.verdict else []
    lines += [saving.sentence for saving in report.savings]
    listed = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    sorts = _sorts(report)
    key = "".join(
        f'<span><b style="background:{colour}"></b>{html.escape(sort)}</span>' for sort, colour in sorts.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">\n'
        f"<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{title}</h1><p>{html.escape(report.target)}</p>"
        f"<p>{_latency(report)}</p><ul>{listed}</ul></header>\n"
        f'<section><h2>Time by unit</h2><p class="soft">The thin, pale bar is the dense model.</p>'
        f'<div class="keys">{key}</div><div class="times">{"".join(_bars(report, sorts))}</div></section>\n'
        f"<section><h2>Figures</h2>{_table(report)}</section>\n</main>\n</body>\n</html>\n"
    )


def explain_png(report: ExplainReport) -> bytes:
    """The report as a PNG: for each unit a stacked bar above that of the dense model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    parts, sorts = _parts(report), _sorts(report)
    figure = Figure(figsize=(9.0, min(80.0, 2.0 + 0.32 * len(parts))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(picture_text(_title(report)), fontsize=13, x=0.01, ha="left")
    for place, (_, operators) in enumerate(parts.items()):
        now, before = 0.0, 0.0
        for row in operators:
            colour = _colour(row, sorts)
            axes.barh(place - 0.12, row.latency_ms, left=now, height=0.5, color=colour)
            axes.barh(place + 0.29, row.dense_ms, left=before, height=0.24, color=colour, alpha=0.4)
            now, before = now + row.latency_ms, before + row.dense_ms
    axes.set_yticks(range(len(parts)), [picture_text(name) for name in parts], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"latency (ms); thin and pale: the dense model\n{_latency(report)}")
    axes.grid(axis="x", color="#e8ebef")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colour, label=picture_text(sort)) for sort, colour in sorts.items()]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="lower right")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _title(report: ExplainReport) -> str:
    foreign = " (a table from other hardware)" if report.foreign_table else ""
    return f"{report.study}, {report.name}: where the time goes{foreign}"


def _warnings(report: ExplainReport) -> list[str]:
    found = [] if report.hardware_note is None else [report.hardware_note]
    return [*found, *([f"{report.extrapolated} {EXTRAPOLATED}"] if report.extrapolated else [])]


def _latency(report: ExplainReport) -> str:
    if report.low_ms is None or report.high_ms is None:
        return f"predicted latency {number(report.latency_ms)} ms"
    interval = f"{number(report.low_ms)} to {number(report.high_ms)}"
    return f"predicted latency {number(report.latency_ms)} ms ({interval} ms)"


def _parts(report: ExplainReport) -> dict[str, list[TimeRow]]:
    """What is drawn as one bar: the operators of each unit, and what is no unit as it is."""
    found: dict[str, list[TimeRow]] = {}
    for row in report.rows[:-1]:
        found.setdefault(row.name, [])
        if row.operator is not None:
            found[row.name].append(row)
    for row in report.rows[:-1]:
        if not found[row.name]:
            found[row.name].append(row)
    return found


def _sorts(report: ExplainReport) -> dict[str, str]:
    """Colour of each sort of operator, those that take the dense model most time first."""
    totals: dict[str, float] = {}
    for row in report.rows:
        if row.operator is not None:
            totals[row.operator] = totals.get(row.operator, 0.0) + row.dense_ms + row.latency_ms
    ranked = sorted(totals, key=lambda sort: -totals[sort])
    last = len(_COLOURS) - 1
    found = dict(zip(ranked, _COLOURS[:last], strict=False))
    return {**found, "other": _COLOURS[last]}


def _colour(row: TimeRow, sorts: dict[str, str]) -> str:
    return sorts.get(row.operator or "", sorts["other"])


def _bars(report: ExplainReport, sorts: dict[str, str]) -> Iterator[str]:
    parts = _parts(report)
    widest = max(
        (abs(sum(values)) for rows in parts.values() for values in _both(rows)),
        default=0.0,
    )
    scale = 100 / widest if widest > 0 else 0.0
    for name, rows in parts.items():
        now, before = _both(rows)
        yield (
            f'<span>{html.escape(name)}</span><div class="bar2">{_segments(rows, now, sorts, scale)}</div>'
            f"<span>{number(sum(now))} ms</span><span></span>"
            f'<div class="bar2 pale">{_segments(rows, before, sorts, scale)}</div><span class="soft">'
            f'{number(sum(before))} ms</span><div class="gap"></div>'
        )


def _both(rows: list[TimeRow]) -> tuple[list[float], list[float]]:
    return [row.latency_ms for row in rows], [row.dense_ms for row in rows]


def _segments(rows: list[TimeRow], values: list[float], sorts: dict[str, str], scale: float) -> str:
    """One strip for each time above 0."""
    return "".join(
        f'<i style="width:{value * scale:.2f}%;background:{_colour(row, sorts)}" '
        f'title="{html.escape(row.operator or row.name)}: {number(value)} ms"></i>'
        for row, value in zip(rows, values, strict=True)
        if value > 0
    )


def _table(report: ExplainReport) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("unit", "choice", "ms", "share", "dense ms", "share"))
    rows = "".join(_cells(row) for row in report.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cells(row: TimeRow) -> str:
    name = html.escape(row.name) if row.operator is None else f"&emsp;{html.escape(row.operator)}"
    figures = (number(row.latency_ms), f"{row.share:.1%}", number(row.dense_ms), f"{row.dense_share:.1%}")
    cells = "".join(f"<td>{figure}</td>" for figure in figures)
    whole = ' class="whole"' if row.operator is None else ""
    return f"<tr{whole}><td>{name}</td><td>{html.escape(row.choice)}</td>{cells}</tr>"
