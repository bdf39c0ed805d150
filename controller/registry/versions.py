"""Makes a version of a registered model from a verified artifact, and says how to serve and to ask it."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.artifact_job import read_job
from controller.registry.client import VERIFIED
from controller.registry.mlflow_model import ServedForm, write_mlflow_model
from controller.registry.report import RegisteredVersion
from controller.tracking.address import without_credentials
from controller.tracking.messages import find_or_create_experiment, sqlite_path
from controller.tracking.tracker import experiment_name
from workers.export.verified import VerifiedArtifact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PORT = 5001
"""Where the printed commands serve: MLflow's own page has 5000."""
_REQUEST = "paretrim.request"
_REGISTERED = "paretrim.registered"
"""Tag of the trial's run: the version that it became last."""
_EXAMPLE_FILE = "serving_input_example.json"
_LONGEST_REQUEST = 1000


def create_version(client: MlflowClient, uri: str, artifact: VerifiedArtifact, name: str) -> ModelVersion:
    """Upload an artifact as an MLflow model and register it, linked to the run of its trial where there is one."""
    job = read_job(artifact.folder)
    experiment = find_or_create_experiment(
        client, uri, job.mlflow.experiment or experiment_name(job.model.id, job.model.task, job.target.name)
    )
    run = _run_of(client, experiment, artifact)
    tags = _tags(artifact, job.model.task)
    logged = client.create_logged_model(experiment, name=name, source_run_id=run, tags=tags, model_type=job.model.task)
    try:
        with tempfile.TemporaryDirectory(prefix="paretrim-model-") as made:
            path = Path(made) / "model"
            form = write_mlflow_model(artifact, path, model_id=logged.model_id, run_id=run)
            client.log_model_artifacts(logged.model_id, str(path))
        client.finalize_logged_model(logged.model_id, "READY")
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    _ensure_model(client, name)
    report = artifact.report
    version = client.create_model_version(
        name,
        source=f"models:/{logged.model_id}",
        run_id=run,
        tags={**tags, **_request_tag(form)},
        description=f"Trial {report.trial} of study {report.study}, verified {report.created} with {report.runtime}.",
        model_id=logged.model_id,
    )
    if run is not None:
        client.set_tag(run, _REGISTERED, f"{name}/{version.version}")
    return version


def describe_version(
    version: ModelVersion, uri: str, *, alias: str | None, replaced: str | None = None
) -> RegisteredVersion:
    """Say where a version is from, and which commands serve it and ask it.

    Args:
        version: The version.
        uri: Tracking URI of MLflow.
        alias: Alias that stands for it; None where it is called by its number.
        replaced: Version that the alias stood for before.
    """
    trial = version.tags.get("paretrim.trial", "")
    model = f"models:/{version.name}" + (f"@{alias}" if alias is not None else f"/{version.version}")
    body = version.tags.get(_REQUEST)
    head = "curl -H 'Content-Type: application/json'"
    at = f"http://127.0.0.1:{PORT}/invocations"
    if body is None:
        example = f"{model}/{_EXAMPLE_FILE}"
        request = f"mlflow artifacts download -u {example} -d . && {head} -d @{_EXAMPLE_FILE} {at}"
    else:
        request = f"{head} -d {shlex.quote(body)} {at}"
    database = sqlite_path(uri)
    where = without_credentials(uri) if database is None else f"sqlite:///{database}"
    return RegisteredVersion(
        name=version.name,
        version=str(version.version),
        alias=alias,
        replaced=replaced,
        study=version.tags.get("paretrim.study"),
        trial=int(trial) if trial.isdecimal() else None,
        serve=f"MLFLOW_TRACKING_URI={shlex.quote(where)} mlflow models serve -m {model} --env-manager local -p {PORT}",
        request=request,
    )


def _request_tag(form: ServedForm) -> dict[str, str]:
    body = form.request
    return {_REQUEST: body} if len(body) <= _LONGEST_REQUEST else {}


def _run_of(client: MlflowClient, experiment: str, artifact: VerifiedArtifact) -> str | None:
    """MLflow's run of the trial, else that of its study; None where MLflow has neither."""
    report = artifact.report
    study = f"tags.`paretrim.study` = '{report.study}'"
    for further in (f"tags.`paretrim.policy` = '{report.policy_digest}'", "tags.`paretrim.role` = 'study'"):
        runs = client.search_runs([experiment], f"{study} and {further}", max_results=1)
        if runs:
            return str(runs[0].info.run_id)
    return None


def _tags(artifact: VerifiedArtifact, task: str) -> dict[str, str]:
    """What the registry shows of a version: where it is from, and what was measured."""
    report = artifact.report
    figures: dict[str, Any] = {
        "study": report.study,
        "trial": report.trial,
        "policy": report.policy_digest,
        "task": task,
        "metric": report.metric,
        "holdout_metric": f"{report.splits['holdout'].metric:.6g}",
        "dense_holdout_metric": f"{report.dense_metric['holdout']:.6g}",
        "latency_ms": f"{report.latency_measured_ms:.4g}",
        "latency_p99_ms": f"{report.latency_p99_ms:.4g}",
        "size_bytes": report.size_file_bytes,
        "dense_size_bytes": report.dense_size_bytes,
        "runtime": report.runtime,
        "batch": report.batch,
        "threads": report.threads,
    }
    if report.dense_latency_measured_ms is not None:
        figures["dense_latency_ms"] = f"{report.dense_latency_measured_ms:.4g}"
    return {VERIFIED: report.created, **_prefixed(figures)}


def _prefixed(figures: Mapping[str, Any]) -> dict[str, str]:
    return {f"paretrim.{key}": str(value) for key, value in figures.items()}


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
