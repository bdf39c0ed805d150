"""Where a study is seen in MLflow's web page: the address, and the saved view that it opens."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

VIEW_TAG = "mlflow.sharedViewState."
"""Prefix of the experiment tags in which MLflow's page keeps shared views. Undocumented: a page that does not know it
shows the plain list of runs."""

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsAddress:
    """How to look at the runs.

    Attributes:
        url: What to open in a browser.
        command: What to start first; None where a server already runs.
    """

    url: str
    command: str | None = None


def runs_address(uri: str, experiment_id: str, *, study: str | None = None, port: int = 5000) -> RunsAddress:
    """Return the address of an experiment's runs.

    Args:
        uri: Tracking URI: http(s) of a server, or the URL of a database.
        experiment_id: MLflow's number of the experiment.
        study: Opens the study's saved view; without it the plain list.
        port: Port on which the page is to be served where `uri` is a database.

    Returns:
        The address, without credentials.
    """
    query = "workflowType=machine_learning"
    if study is not None:
        query += f"&viewStateShareKey={view_key(study)}&compareRunsMode=CHART"
    page = f"/#/experiments/{quote(experiment_id)}/runs?{query}"
    if is_server(uri):
        parts = urlsplit(uri)
        base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        return RunsAddress(url=base + page)
    command = f"mlflow ui --backend-store-uri {without_credentials(uri)} --port {port}"
    return RunsAddress(url=f"http://127.0.0.1:{port}{page}", command=command)


def is_server(uri: str) -> bool:
    """Whether the tracking URI names a server; else it is a database that is written directly."""
    return uri.startswith(("http://", "https://"))


def without_credentials(text: str) -> str:
    """Mask user and password in all URLs within a text."""
    return _CREDENTIALS.sub("***@", text)


def view_key(study: str) -> str:
    """Key of the study's saved view."""
    return hashlib.sha256(study.encode()).hexdigest()[:16]


def shared_view(study: str, metric: str) -> str:
    """State of MLflow's runs page that shows one study's points, quality against latency.

    Args:
        study: Identity of the study.
        metric: Name of the quality metric, for headings.

    Returns:
        JSON for the experiment tag `VIEW_TAG` + `view_key(study)`.
    """
    section = f"{view_key(study)}-front"
    common = {"metricSectionId": section, "deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    charts: list[dict[str, Any]] = [
        {
            **common,
            "type": "SCATTER",
            "uuid": f"{section}-scatter",
            "displayName": f"{metric} against latency",
            "xaxis": {"key": "latency_ms", "type": "METRIC"},
            "yaxis": {"key": "quality", "type": "METRIC"},
        },
        {
            **common,
            "type": "PARALLEL",
            "uuid": f"{section}-parallel",
            "displayName": "Quality, latency, size",
            "selectedParams": [],
            "selectedMetrics": ["size_bytes", "latency_ms", "quality"],
        },
    ]
    state = {
        "searchFilter": f"tags.`paretrim.study` = '{study}'",
        "orderByKey": "metrics.`latency_ms`",
        "orderByAsc": True,
        "selectedColumns": [f"metrics.`{m}`" for m in ("quality", "holdout_quality", "latency_ms", "size_bytes")],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": section, "name": "Front", "display": True, "isReordered": False, "columns": 1}],
    }
    return json.dumps(state)
