"""Brings the artifact of a registered model here."""

from __future__ import annotations

import warnings
from pathlib import Path

from controller.registry.client import find_version, holder_of, no_such_alias, open_registry
from controller.registry.mlflow_model import ARTIFACT_PATH
from controller.registry.names import ModelReference
from controller.registry.report import RegisteredVersion
from controller.registry.versions import describe_version


def fetch(model: ModelReference, uri: str, to: Path) -> tuple[Path, RegisteredVersion]:
    """Download the artifact of a version.

    Args:
        model: The version.
        uri: Tracking URI of MLflow.
        to: Folder for the files.

    Returns:
        The artifact's folder, and the version.

    Raises:
        UsageError: No such model, version or alias, or it was not registered by Paretrim.
        RegistryError: MLflow does not answer.
    """
    with open_registry(uri) as client:
        number = model.version
        if number is None:
            assert model.alias is not None
            number = holder_of(client, model.name, model.alias)
            if number is None:
                raise no_such_alias(client, model.name, model.alias)
        version = find_version(client, model.name, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns of its own type hints as it is imported.
            import mlflow.artifacts

            found = mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{model.name}/{number}", dst_path=str(to), tracking_uri=uri, registry_uri=uri
            )
        return Path(found) / ARTIFACT_PATH, describe_version(version, uri, alias=model.alias)
