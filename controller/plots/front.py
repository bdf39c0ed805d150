"""The front of a study as a page that works offline."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.latency_words import capitalised
from controller.plots.page import page
from controller.plots.sensitivity import loss_section
from controller.plots.study_data import page_data, placed_points
from controller.report_details import ReportDetails
from controller.study_view import PointView, StudyView, number, size_text


def front_html(view: StudyView, details: ReportDetails | None = None) -> str:
    """The study as one page: quality against costs, policies unit by unit, tables, hypervolume, sensitivity.

    Args:
        view: The study.
        details: What its trials alone do not tell; parts of the page that need what is missing are left out.

    Returns:
        HTML of some 30 kB and less than 1 kB a trial. Nothing is loaded from elsewhere, and all texts are escaped.
    """
    details = details or ReportDetails()
    points = placed_points(view)
    data = page_data(view, points, details)
    return page(title=view.title, body=_body(view, details, points, data["costs"]), data=data)


def _body(view: StudyView, details: ReportDetails, points: list[PointView], costs: Sequence[Mapping[str, Any]]) -> str:
    index = {id(point): at for at, point in enumerate(points)}
    bounds = "; ".join(view.bounds.texts(view.metric))
    rows = [*_rows(view, view.front, index)]
    base = [*_rows(view, [p for p in view.baselines if p not in view.front], index)]
    parts = [
        f"<header><h1>{html.escape(view.title)}</h1><p>{html.escape(view.result_sentence)}</p>",
        f'<p class="soft">Constraints: {html.escape(bounds)}.</p>' if bounds else "",
        f"<p><code>{html.escape(view.export_command)}</code></p></header>",
        f'<section><div class="head"><h2>Quality against costs</h2>{_controls(view, costs)}</div>'
        '<div id="legend" class="legend"></div><div id="scatter" class="chart"></div></section>',
        '<section><h2>Policy</h2><div id="policy"><p class="soft hint">Choose a point or a row to see its policy '
        "unit by unit.</p></div></section>",
        _table(view, "Front", rows, note=view.latency_sentence),
        _table(view, "Baselines", base),
        _holdout(view),
        f'<section><h2>Hypervolume</h2><p class="soft">{html.escape(view.hypervolume_sentence)}</p>'
        '<div id="volume" class="chart"></div></section>'
        if view.hypervolume_by_trial
        else "",
        "" if details.sensitivity is None else loss_section(details.sensitivity),
    ]
    return "\n".join(part for part in parts if part)


def _controls(view: StudyView, costs: Sequence[Mapping[str, Any]]) -> str:
    options = "".join(f'<option value="{i}">{html.escape(cost["title"])}</option>' for i, cost in enumerate(costs))
    zoom = '<button id="zoom" type="button" aria-pressed="false">Zoom to the front</button>' if view.front else ""
    return f'<div><label for="cost" class="soft">against</label><select id="cost">{options}</select>{zoom}</div>'


def _table(view: StudyView, heading: str, rows: list[str], *, note: str = "") -> str:
    if not rows:
        return f'<section><h2>{heading}</h2><p class="soft">None yet.</p></section>'
    below = f'<p class="soft">{html.escape(capitalised(note))}.</p>' if note else ""
    metric = "" if view.task_metric is None else f"<th>{html.escape(view.task_metric)} on holdout</th>"
    further = "".join(f"<th>{heading}</th>" for heading in view.further_headings)
    head = (
        f"<tr><th>policy</th><th>{html.escape(view.metric)}</th><th>holdout</th><th>gap</th>{metric}"
        f"<th>latency (ms)</th><th>times dense</th><th>size</th><th>times dense</th>{further}"
        '<th class="words">constraints</th></tr>'
    )
    return (
        f'<section><h2>{heading}</h2><div class="scroll"><table><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{below}</section>"
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
