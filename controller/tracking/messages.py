"""What one outbox message does to MLflow. Every replay of a message ends in the same runs.

Runs are found again by tags that are written as the run is created; metrics carry the time at which they were put, so
that MLflow's key (name, time, step, value) makes a second copy the first one; parameters that exist are not sent.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from controller.plots.picture import PICTURE_COLOURS
from controller.tracking.address import VIEW_TAG, shared_view, view_key, without_credentials
from controller.tracking.outbox import OutboxItem

if TYPE_CHECKING:  # mlflow takes a second to import
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

ENTRIES_PER_BATCH = 100
"""MLflow takes at most 100 parameters or tags a request."""
LONGEST_VALUE = 6000
"""MLflow cuts longer parameters without a word."""

_BAD_IN_KEY = re.compile(r"[^\w.\- ]")
_STUDY_NAME = re.compile(r"[\w.:/\- ]{1,200}")


class Kind(StrEnum):
    """Kinds of messages."""

    STUDY = "mlflow.study"
    """A study begins or continues: parent run, parameters, job file, saved view."""
    PROGRESS = "mlflow.progress"
    """Metrics of the parent run at one step."""
    POINT = "mlflow.point"
    """Child run of a trial or a baseline."""
    ARTIFACT = "mlflow.artifact"
    """A file of the parent run."""
    FINISHED = "mlflow.finished"
    """Note and state of the parent run; children that left the front lose its marks."""


class TrackingError(RuntimeError):
    """MLflow cannot take what is sent, and the message says what a person must change."""


class _ChildKey(NamedTuple):
    role: str
    policy: str


def check_study_name(study: str) -> str:
    """Return the name if it can stand in MLflow's search expressions.

    Raises:
        ValueError: It holds quotes, control characters or the like, or is empty or longer than 200 characters.
    """
    if not _STUDY_NAME.fullmatch(study):
        raise ValueError(f"a study's name has 1 to 200 letters, digits, spaces and . _ : / -; got {study!r}; rename it")
    return study


def safe_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename keys to what MLflow allows (letters, digits, ``_ . - `` and space, 250 characters), keeping them apart."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = base = _BAD_IN_KEY.sub("_", name).strip(". ")[:240] or "_"
        repeat = 1
        while key in found:
            repeat += 1
            key = f"{base}_{repeat}"
        found[key] = value
    return found


def finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Drop metrics that are missing, NaN or infinite: MLflow would store infinity as 1.8e308."""
    return {key: float(v) for key, v in metrics.items() if v is not None and math.isfinite(v)}


def open_client(uri: str) -> "MlflowClient":
    """Open a tracking URI; the folder of a SQLite file is made.

    Raises:
        TrackingError: The URI is none that this MLflow can use.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    database = sqlite_path(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    try:
        return MlflowClient(uri)
    except MlflowException as error:
        if error.get_http_status_code() >= 500:  # type: ignore[no-untyped-call]
            raise
        raise TrackingError(
            f"MLflow cannot use the tracking URI {without_credentials(uri)}; "
            f"give mlflow.tracking_uri as sqlite:///PATH or http://HOST:PORT ({error})"
        ) from error


def find_or_create_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Return MLflow's number of an experiment, which is made where there is none of that name.

    Raises:
        TrackingError: It was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=_artifact_location(uri))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise TrackingError(
            f"MLflow's experiment {name!r} was deleted; restore it in MLflow (mlflow experiments restore), "
            "or give the job another mlflow.experiment"
        )
    return str(found.experiment_id)


class Replay:
    """Applies messages to one MLflow.

    Args:
        client: Client of the tracking URI.
        uri: The tracking URI.
    """

    def __init__(self, client: "MlflowClient", uri: str) -> None:
        self._client = client
        self._uri = uri
        self._experiments: dict[str, str] = {}
        self._parents: dict[tuple[str, str], str] = {}
        self._children: dict[str, dict[_ChildKey, str]] = {}

    def experiment_id(self, name: str) -> str | None:
        """MLflow's number of an experiment that a message has named, else None."""
        return self._experiments.get(name)

    def apply(self, items: Sequence[OutboxItem]) -> None:
        """Apply messages of one kind and one study, as `groups` yields them.

        Raises:
            TrackingError: A person must change something first.
            ValueError: The message is malformed.
            mlflow.exceptions.MlflowException: MLflow refused it or was not reached.
        """
        kind, payload = Kind(items[0].kind), items[0].payload
        parent = self._parent(payload)
        if kind is Kind.PROGRESS:
            self._log_metrics(parent, [item.payload for item in items])
        elif kind is Kind.STUDY:
            self._begin(parent, payload)
        elif kind is Kind.POINT:
            self._point(parent, payload)
        elif kind is Kind.ARTIFACT:
            self._client.log_artifact(parent, payload["path"])
        else:
            self._finish(parent, payload)

    def _begin(self, parent: str, payload: Mapping[str, Any]) -> None:
        known = self._client.get_run(parent).data.params
        params = {k: v for k, v in safe_keys(payload["params"]).items() if k not in known}
        self._log_params(parent, params, instead="longer than 6,000 characters: see job.yaml")
        if payload["job_yaml"] is not None:
            self._client.log_text(parent, payload["job_yaml"], "job.yaml")
        self._client.update_run(parent, status="RUNNING", name=payload["name"])
        if payload.get("owner"):
            self._set_tags(parent, {"paretrim.owner": payload["owner"], "mlflow.user": payload["owner"]})
        experiment = self._experiments[payload["experiment"]]
        view = shared_view(payload["study"], payload["metric"])
        self._client.set_experiment_tag(experiment, VIEW_TAG + view_key(payload["study"]), view)

    def _point(self, parent: str, payload: Mapping[str, Any]) -> None:
        children = self._known_children(parent, payload)
        key = _ChildKey(payload["tags"]["paretrim.role"], payload["tags"]["paretrim.policy"])
        tags = {**payload["tags"], "paretrim.study": payload["study"], "mlflow.parentRunId": parent}
        child = children.get(key)
        if child is None:
            experiment = self._experiments[payload["experiment"]]
            run = self._client.create_run(
                experiment, start_time=payload["time_ms"], tags=tags, run_name=payload["name"]
            )
            child = children[key] = run.info.run_id
            tags = {}
        self._log_child(child, payload, tags)
        self._client.log_text(child, payload["policy_json"], "policy.json")
        self._client.set_terminated(child, status=payload.get("status", "FINISHED"), end_time=payload["time_ms"])

    def _log_child(self, child: str, payload: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Log scores, policy and tags in one request where MLflow takes as many."""
        params = _params(safe_keys(payload["params"]), instead="see policy.json")
        self._client.log_batch(child, metrics=_metrics([payload]), params=params[:ENTRIES_PER_BATCH], tags=_tags(tags))
        for part in _batches(params[ENTRIES_PER_BATCH:]):
            self._client.log_batch(child, params=part)

    def _finish(self, parent: str, payload: Mapping[str, Any]) -> None:
        self._set_tags(parent, {"mlflow.note.content": payload["note"][:8000]})
        sent = {_ChildKey(role, policy) for role, policy in payload["shown"]}
        for key, child in self._known_children(parent, payload).items():
            if key not in sent:
                self._set_tags(child, {"paretrim.pareto": "false", "mlflow.runColor": PICTURE_COLOURS["other"]})
        self._client.set_terminated(parent, status=payload["status"], end_time=payload["time_ms"])

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = find_or_create_experiment(self._client, self._uri, name)
        return self._experiments[name]

    def _parent(self, payload: Mapping[str, Any]) -> str:
        name, study = payload["experiment"], check_study_name(payload["study"])
        if (name, study) not in self._parents:
            experiment = self._experiment(name)
            tags = {"paretrim.study": study, "paretrim.role": "study"}
            wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
            runs = self._client.search_runs([experiment], wanted, max_results=1, order_by=["start_time ASC"])
            run = (
                runs[0]
                if runs
                else self._client.create_run(experiment, start_time=payload["time_ms"], tags=tags, run_name=study)
            )
            self._parents[name, study] = run.info.run_id
        return self._parents[name, study]

    def _known_children(self, parent: str, payload: Mapping[str, Any]) -> dict[_ChildKey, str]:
        if parent not in self._children:
            found: dict[_ChildKey, str] = {}
            token: str | None = ""
            while token is not None:
                runs = self._client.search_runs(
                    [self._experiments[payload["experiment"]]],
                    f"tags.`mlflow.parentRunId` = '{parent}'",
                    page_token=token or None,
                )
                for run in runs:
                    tags = run.data.tags
                    found[_ChildKey(tags.get("paretrim.role", ""), tags.get("paretrim.policy", ""))] = run.info.run_id
                token = runs.token or None
            self._children[parent] = found
        return self._children[parent]

    def _log_params(self, run: str, params: Mapping[str, str], *, instead: str) -> None:
        for part in _batches(_params(params, instead=instead)):
            self._client.log_batch(run, params=part)

    def _log_metrics(self, run: str, payloads: Iterable[Mapping[str, Any]]) -> None:
        for part in _batches(_metrics(payloads), size=1000):
            self._client.log_batch(run, metrics=part)

    def _set_tags(self, run: str, tags: Mapping[str, str]) -> None:
        self._client.log_batch(run, tags=_tags(tags))


def _params(params: Mapping[str, str], *, instead: str) -> list["Param"]:
    from mlflow.entities import Param

    return [Param(key, value if len(value) <= LONGEST_VALUE else instead) for key, value in params.items()]


def _metrics(payloads: Iterable[Mapping[str, Any]]) -> list["Metric"]:
    from mlflow.entities import Metric

    return [
        Metric(key, value, payload["time_ms"], payload.get("step", 0))
        for payload in payloads
        for key, value in safe_keys(finite(payload["metrics"])).items()
    ]


def _tags(tags: Mapping[str, str]) -> list["RunTag"]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def groups(items: Sequence[OutboxItem]) -> list[list[OutboxItem]]:
    """Cut messages into runs that one request can take: neighbouring progress of one study, else single ones."""
    found: list[list[OutboxItem]] = []
    for item in items:
        last = found[-1][-1] if found else None
        joins = (
            last is not None
            and item.kind == last.kind == Kind.PROGRESS
            and (item.payload.get("study"), item.payload.get("experiment"))
            == (last.payload.get("study"), last.payload.get("experiment"))
        )
        if joins:
            found[-1].append(item)
        else:
            found.append([item])
    return found


def _batches(entries: list[Any], size: int = ENTRIES_PER_BATCH) -> Iterable[list[Any]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite tracking URI, absolute; None for other URIs."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix).partition("?")[0]).resolve() if uri.startswith(prefix) else None


def _artifact_location(uri: str) -> str | None:
    """Beside a SQLite file, so that the artifacts do not depend on the folder that the search runs in."""
    database = sqlite_path(uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()
