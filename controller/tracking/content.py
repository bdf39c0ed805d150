"""What MLflow shows of a study: the note of its parent run, and the content of a child run."""

from typing import Any

from controller.plots.picture import PICTURE_COLOURS, kind_of
from controller.safe_writing import markdown_text
from controller.study_view import PointState, PointView, StudyView
from controller.tracking.messages import finite

MOST_REASON = 1000
"""Characters of a failure's message in its tag; the database has all of it."""


def study_note(view: StudyView) -> str:
    """Note of the parent run; MLflow shows three lines before it folds, so they hold result and command."""
    lines = [
        f"**{markdown_text(view.title)}**: {markdown_text(view.result_sentence)}",
        "",
        f"    {view.export_command}",
    ]
    bounds = view.bounds.texts(view.metric)
    if bounds:
        lines += ["", "Constraints: " + markdown_text("; ".join(bounds))]
    lines += ["", f"{len(view.front)} policies on the front: see the artifacts `front.html` and `report.md`."]
    return "\n".join(lines)


def point_payload(point: PointView, metric: str) -> dict[str, Any]:
    """Name, parameters, metrics, tags, state and policy of the child run of a trial or a baseline.

    Args:
        point: The point.
        metric: Name of the quality metric.
    """
    policy = point.as_policy
    tags = {
        "paretrim.role": point.role.value,
        "paretrim.policy": policy.digest,
        "paretrim.metric": metric,
        "paretrim.pareto": str(point.on_front).lower(),
        "paretrim.feasible": str(point.feasible).lower(),
        "paretrim.state": point.state.value,
        "mlflow.runColor": PICTURE_COLOURS["front" if point.on_front else kind_of(point)],
    }
    if point.trial is not None:
        tags["paretrim.trial"] = str(point.trial)
    if point.failure is not None:
        tags["paretrim.failure"] = point.failure[:MOST_REASON]
    metrics = {
        "quality": point.quality,
        "quality_low": point.quality_low,
        "quality_high": point.quality_high,
        "holdout_quality": point.holdout_quality,
        "holdout_metric": None if point.holdout_metric is None else point.holdout_metric.value,
        "latency_ms": point.latency_ms,
        "size_bytes": point.size_bytes,
        "energy_mj": point.energy_mj,
        "peak_memory_bytes": point.peak_memory_bytes,
        "kl_to_dense": point.kl_to_dense,
    }
    return {
        "name": point.name,
        "params": {unit: view.text for unit, view in point.policy.items()},
        "metrics": finite(metrics),
        "tags": tags,
        "status": "FAILED" if point.state is PointState.FAILED else "FINISHED",
        "policy_json": policy.to_json(),
    }
