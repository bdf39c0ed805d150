"""The fronts of a study on two targets in one plot: a page that works offline, and a picture."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence

from controller.plots.page import CONTENT_POLICY, STYLE
from controller.plots.picture import PICTURE_COLOURS, picture_text
from controller.plots.svg import SVG_STYLE, Mark, Series, key_html, scatter_svg
from controller.results import EXTRAPOLATED
from controller.retargeting.report import RetargetResult
from controller.study_view import number, size_text

_COLOURS = {"before": PICTURE_COLOURS["uniform"], "priced": PICTURE_COLOURS["other"], "front": PICTURE_COLOURS["front"]}


def retarget_html(report: RetargetResult) -> str:
    """Both fronts as one page: quality against latency, and the front before, member by member.

    Args:
        report: The report.

    Returns:
        A whole HTML document without scripts; nothing is loaded from elsewhere, and all texts are escaped.
    """
    result = report.result
    series = [entry for entry in _series(report) if entry.marks]
    title = html.escape(_title(report))
    sentences = "".join(
        f"<li>{html.escape(text)}</li>" for text in (*warnings_of(report), *_latency(report), *report.sentences)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">\n'
        f"<title>{title}</title>\n<style>{STYLE}{SVG_STYLE}tbody tr {{ cursor: auto; }}</style>\n</head>\n<body>\n"
        f"<main>\n<header><h1>{title}</h1><p>{html.escape(result.target)}</p>"
        f'<p class="soft">before: {html.escape(report.origin_target)}</p><ul>{sentences}</ul></header>\n'
        f"<section><h2>Quality against latency</h2>{key_html(series)}"
        f"{scatter_svg(series, x='latency (ms)', y=result.metric)}</section>\n"
        f"{_table('Front on this target', _front_head(result.metric), _front_rows(report))}"
        f"{_table(f'Front of {report.origin}', _before_head(result.metric), _before_rows(report))}"
        "</main>\n</body>\n</html>\n"
    )


def retarget_png(report: RetargetResult) -> bytes:
    """Both fronts as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(picture_text(_title(report)), fontsize=13, x=0.01, ha="left")
    for entry in _series(report):
        if not entry.marks:
            continue
        steps, style = entry.staircase, "--" if entry.dashed else "-"
        axes.step([m.x for m in steps], [m.y for m in steps], style, where="post", color=entry.colour, zorder=2)
        axes.scatter(
            [m.x for m in entry.marks],
            [m.y for m in entry.marks],
            s=34,
            zorder=3,
            label=picture_text(entry.name),
            facecolors=["white" if mark.hollow else entry.colour for mark in entry.marks],
            edgecolors=entry.colour,
        )
    axes.set(xlabel="latency (ms)", ylabel=picture_text(report.result.metric))
    axes.grid(color="#e8ebef")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def warnings_of(report: RetargetResult) -> tuple[str, ...]:
    """What every figure is to be read with: where latencies hold and what they are good for, and notes."""
    result = report.result
    found = [] if result.hardware_note is None else [result.hardware_note]
    found += [f"{result.extrapolated} {EXTRAPOLATED}"] if result.extrapolated else []
    return (*found, *result.notes)


def _latency(report: RetargetResult) -> tuple[str, ...]:
    sentence = report.result.latency_sentence
    return (sentence,) if sentence else ()


def _title(report: RetargetResult) -> str:
    foreign = " (latencies of a table from other hardware)" if report.result.foreign_table else ""
    return f"{report.result.study}: {report.origin} on another target{foreign}"


def _series(report: RetargetResult) -> tuple[Series, ...]:
    """The front before on its own target, the same policies here, and the front here."""
    here = tuple(
        Mark(
            x=row.latency_ms,
            y=row.quality,
            words=f"{row.name}: {number(row.quality)} at {number(row.latency_ms)} ms, {size_text(row.size_bytes)}",
            hollow=row.taken_over,
        )
        for row in report.result.front
    )
    before = tuple(
        Mark(
            x=row.latency_before_ms,
            y=row.quality,
            words=f"{row.name} of {report.origin}: {number(row.quality)} at {number(row.latency_before_ms)} ms",
        )
        for row in report.before
    )
    priced = tuple(
        Mark(
            x=row.latency_ms,
            y=row.quality,
            words=f"{row.name} of {report.origin}: {number(row.quality)} at {number(row.latency_ms)} ms now",
        )
        for row in report.before
        if row.latency_ms is not None
    )
    return (
        Series(name=f"front of {report.origin} on its own target", colour=_COLOURS["before"], marks=before),
        Series(name="the same policies on this target", colour=_COLOURS["priced"], marks=priced, dashed=True),
        Series(name="front on this target (rings: scores taken over)", colour=_COLOURS["front"], marks=here),
    )


def _front_head(metric: str) -> tuple[str, ...]:
    return ("policy", metric, "latency (ms)", "times dense", "size", "score")


def _front_rows(report: RetargetResult) -> Iterator[tuple[str, ...]]:
    for row in report.result.front:
        yield (
            row.label,
            number(row.quality),
            number(row.latency_ms),
            f"{row.latency_ratio:.2f}",
            size_text(row.size_bytes),
            "taken over" if row.taken_over else "made for this target",
        )


def _before_head(metric: str) -> tuple[str, ...]:
    return ("policy", metric, "latency before (ms)", "latency now (ms)", "size", "on the front now")


def _before_rows(report: RetargetResult) -> Iterator[tuple[str, ...]]:
    for row in report.before:
        yield (
            row.name,
            number(row.quality),
            number(row.latency_before_ms),
            number(row.latency_ms),
            size_text(row.size_bytes),
            row.on_front_text,
        )


def _table(heading: str, head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<section><h2>{html.escape(heading)}</h2><div class="scroll"><table><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>\n"
    )
