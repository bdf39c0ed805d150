"""Files that a study leaves behind: front.json, trials.csv, report.md, front.html and front.png."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.latency_words import capitalised
from controller.safe_writing import csv_cell, markdown_text, one_line, write_whole
from controller.study_view import PointView, StudyView, number, size_text

if TYPE_CHECKING:
    from controller.report_details import ReportDetails

SCHEMA_VERSION = 1

CSV_COLUMNS = (
    "trial",
    "name",
    "role",
    "state",
    "metric",
    "quality",
    "quality_low",
    "quality_high",
    "holdout_quality",
    "holdout_low",
    "holdout_high",
    "holdout_metric",
    "holdout_metric_low",
    "holdout_metric_high",
    "share",
    "kl_to_dense",
    "latency_ms",
    "size_bytes",
    "energy_mj",
    "peak_memory_bytes",
    "feasible",
    "on_front",
    "failure",
    "policy_digest",
    "policy_json",
)

_INTERVALS = ("quality", "quality_low", "quality_high", "holdout_quality", "holdout_low", "holdout_high")


def write_report_files(view: StudyView, folder: Path, details: ReportDetails | None = None) -> tuple[Path, ...]:
    """Write all report files, each by atomic rename.

    Args:
        view: The study.
        folder: Where they go; made if it is missing.
        details: What the page shows beside the trials.

    Returns:
        Their paths: front.html, front.png, front.json, trials.csv, report.md.
    """
    from controller.plots.front import front_html
    from controller.plots.picture import front_png

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "front.html": front_html(view, details),
        "front.json": front_json(view),
        "trials.csv": trials_csv(view),
        "report.md": report_markdown(view),
    }
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
    write_whole(folder / "front.png", front_png(view))
    return tuple(folder / name for name in ("front.html", "front.png", "front.json", "trials.csv", "report.md"))


def front_json(view: StudyView) -> str:
    """The front and the baselines for programs; a number that is not finite becomes null."""
    body = {
        "schema_version": SCHEMA_VERSION,
        "study": view.study,
        "metric": view.metric,
        "task_metric": view.task_metric,
        "objectives": list(view.objectives),
        "energy_basis": view.energy_basis,
        "dense": {
            "quality": _finite(view.dense_quality),
            "latency_ms": _finite(view.dense_latency_ms),
            "size_bytes": view.dense_size_bytes,
        },
        "constraints": {
            "min_quality": view.bounds.min_quality,
            "max_latency_ms": view.bounds.max_latency_ms,
            "max_size_bytes": view.bounds.max_size_bytes,
            "max_energy_mj": view.bounds.max_energy_mj,
            "max_peak_memory_bytes": view.bounds.max_peak_memory_bytes,
        },
        "front": [_point_body(p) for p in view.front],
        "baselines": [_point_body(p) for p in view.baselines],
        "holdout": None if view.holdout_check is None else view.holdout_check.to_dict(),
        "reference": {name: _finite(value) for name, value in view.reference.items()},
        "latency_margin_pct": _finite(view.latency_margin_pct),
        "hypervolume_by_trial": [_finite(v) for v in view.hypervolume_by_trial],
    }
    return json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def trials_csv(view: StudyView) -> str:
    """All points, a row each, with the policy's digest and JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_csv_rows(view))
    return text.getvalue()


def report_markdown(view: StudyView) -> str:
    """The result in words, the front beside the baselines, and how to go on."""
    lines = [f"# {markdown_text(view.title)}", "", markdown_text(view.result_sentence), ""]
    bounds = view.bounds.texts(view.metric)
    if bounds:
        lines += ["Constraints: " + markdown_text("; ".join(bounds)) + ".", ""]
    lines += ["## Front", "", *_table(view, view.front), ""]
    if view.latency_sentence:
        lines += [markdown_text(capitalised(view.latency_sentence)) + ".", ""]
    if view.hypervolume_sentence:
        lines += [markdown_text(view.hypervolume_sentence), ""]
    lines += ["## Baselines", "", *_table(view, view.baselines), ""]
    if view.holdout_check is not None:
        lines += ["## On the holdout", ""]
        lines += [f"- {markdown_text(sentence)}" for sentence in view.holdout_check.sentences] + [""]
    lines += [
        "`*` marks the policy of the sentence above. Quality is measured on the search split, with its interval where "
        "one was computed; the holdout column is measured on examples that the search never saw, and the gap is the "
        "former less the latter. The front bends most at its knee.",
        "",
        *_about_fidelity(view),
        "## Export",
        "",
        "    " + one_line(view.export_command),
        "",
        "Any other member of the front is exported by its own number.",
    ]
    return "\n".join(lines) + "\n"


def _about_fidelity(view: StudyView) -> list[str]:
    if view.task_metric is None:
        return []
    return [
        "Fidelity is how far the outputs overlap with the dense model's: 1 less the total variation distance of the "
        f"two distributions, averaged over examples. The search went by it alone, not by "
        f"{markdown_text(view.task_metric)}.",
        "",
    ]


def _table(view: StudyView, points: Sequence[PointView]) -> Iterator[str]:
    if not points:
        yield "None."
        return
    metric = () if view.task_metric is None else (f"{markdown_text(view.task_metric)} on holdout",)
    scores = (markdown_text(view.metric), "holdout", "gap", *metric)
    numbers = (*scores, "latency (ms)", "times dense", "size", "times dense", *view.further_headings)
    yield "| " + " | ".join(("policy", *numbers, "feasible")) + " |"
    yield "|---|" + "---:|" * len(numbers) + "---|"
    for point in points:
        latency, size = point.latency_ms or 0.0, point.size_bytes or 0
        cells = (
            markdown_text(point.label) + (" \\*" if point is view.headline else ""),
            point.quality_text,
            point.holdout_text,
            point.gap_text,
            *(() if view.task_metric is None else (point.holdout_metric_text,)),
            number(latency),
            f"{latency / view.dense_latency_ms:.2f}",
            size_text(point.size_bytes),
            f"{size / view.dense_size_bytes:.2f}",
            *view.further_texts(point),
            "yes" if point.feasible else "no",
        )
        yield "| " + " | ".join(cells) + " |"


def _point_body(point: PointView) -> dict[str, Any]:
    policy, check = point.as_policy, point.holdout_metric
    return {
        "trial": point.trial,
        "name": point.name,
        "role": point.role.value,
        "quality": _finite(point.quality),
        "quality_low": _finite(point.quality_low),
        "quality_high": _finite(point.quality_high),
        "holdout_quality": _finite(point.holdout_quality),
        "holdout_low": _finite(point.holdout_low),
        "holdout_high": _finite(point.holdout_high),
        "search_gap": _finite(point.search_gap),
        "holdout_metric": None if check is None else {"value": check.value, "low": check.low, "high": check.high},
        "knee": point.knee,
        "kl_to_dense": _finite(point.kl_to_dense),
        "latency_ms": _finite(point.latency_ms),
        "size_bytes": point.size_bytes,
        "energy_mj": _finite(point.energy_mj),
        "peak_memory_bytes": point.peak_memory_bytes,
        "feasible": point.feasible,
        "on_front": point.on_front,
        "policy_digest": policy.digest,
        "policy": json.loads(policy.to_json()),
    }


def _csv_rows(view: StudyView) -> Iterator[list[str]]:
    for point in view.points:
        policy = point.as_policy
        numbers = {name: _finite(getattr(point, name)) for name in (*_INTERVALS, "kl_to_dense", "latency_ms")}
        metric = point.holdout_metric
        cells: dict[str, Any] = {
            "trial": point.trial,
            "name": csv_cell(point.name),
            "role": point.role.value,
            "state": point.state.value,
            "metric": csv_cell(view.metric),
            **numbers,
            "holdout_metric": None if metric is None else metric.value,
            "holdout_metric_low": None if metric is None else metric.low,
            "holdout_metric_high": None if metric is None else metric.high,
            "share": None if point.quality is None else point.share,
            "size_bytes": point.size_bytes,
            "energy_mj": _finite(point.energy_mj),
            "peak_memory_bytes": point.peak_memory_bytes,
            "feasible": str(point.feasible).lower(),
            "on_front": str(point.on_front).lower(),
            "failure": csv_cell(point.failure or ""),
            "policy_digest": policy.digest,
            "policy_json": policy.to_json(),
        }
        yield ["" if cells[name] is None else str(cells[name]) for name in CSV_COLUMNS]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
