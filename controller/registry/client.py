"""MLflow's model registry as its client shows it: what is there, and errors in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controller.errors import UsageError
from controller.tracking.address import without_credentials
from controller.tracking.messages import TrackingError, open_client
from controller.tracking.tracker import MLFLOW_DEFAULTS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

VERIFIED = "paretrim.verified"
"""Tag of versions that Paretrim has registered: when they were verified."""
_NAMED = 10


class RegistryError(RuntimeError):
    """MLflow does not answer, or does not take a model."""


@contextmanager
def open_registry(uri: str) -> Iterator[MlflowClient]:
    """Open a tracking URI, which does not try a dead server for minutes.

    Raises:
        RegistryError: It is none, or MLflow does not answer or refuses something within the block.
    """
    for key, value in {**MLFLOW_DEFAULTS, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}.items():
        os.environ.setdefault(key, value)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    where = without_credentials(uri)
    if "***@" in uri:
        raise RegistryError(f"a study keeps no passwords; got {where}; give the whole address: --tracking-uri")
    try:
        with _everywhere(uri):
            yield open_client(uri)
    except (MlflowException, SQLAlchemyError, TrackingError) as error:
        cause = without_credentials(str(error)).partition("\n")[0][:400]
        raise RegistryError(
            f"MLflow's registry at {where} must answer and take what is sent; it said: {cause}; check --tracking-uri "
            "and the server"
        ) from error


@contextmanager
def _everywhere(uri: str) -> Iterator[None]:
    """Let all of MLflow go by the tracking URI: its stores look models up by the one of the process."""
    import mlflow

    known = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    before = mlflow.get_tracking_uri() if known else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


def aliases_of(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the aliases of a model and the versions that they stand for.

    Raises:
        UsageError: No such model.
    """
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        models = [model.name for model in client.search_registered_models(max_results=_NAMED)]
        raise UsageError(
            f"no registered model {name!r}; MLflow has: {', '.join(models) or 'none'}; check the name and "
            "--tracking-uri, or register one: paretrim register DIR"
        ) from error
    return {str(alias).lower(): str(version) for alias, version in aliases.items()}


def holder_of(client: MlflowClient, name: str, alias: str) -> str | None:
    """Return the version that an alias stands for; None where it is not set.

    Raises:
        UsageError: No such model.
    """
    return aliases_of(client, name).get(alias.lower())


def version_numbers(client: MlflowClient, name: str) -> list[str]:
    """Return the numbers of a model's versions, ascending."""
    found: list[str] = []
    token: str | None = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found += [str(version.version) for version in page]
        token = page.token or None
        if token is None:
            return sorted(found, key=int)


def find_version(client: MlflowClient, name: str, number: str) -> ModelVersion:
    """Return a version that Paretrim has registered.

    Raises:
        UsageError: No such model or version, or it was not verified.
    """
    aliases_of(client, name)
    known = version_numbers(client, name)
    if number not in known:
        raise UsageError(f"model {name!r} has no version {number}; it has: {', '.join(known) or 'none'}")
    found = client.get_model_version(name, number)
    if VERIFIED not in found.tags:
        raise UsageError(
            f"a version that is served was verified; version {number} of {name!r} was not registered by Paretrim; "
            "register an artifact: paretrim register DIR"
        )
    return found


def no_such_alias(client: MlflowClient, name: str, alias: str) -> UsageError:
    """An error that says which aliases and versions a model has."""
    aliases = ", ".join(f"{known} (version {number})" for known, number in aliases_of(client, name).items())
    versions = ", ".join(version_numbers(client, name)) or "none"
    return UsageError(
        f"model {name!r} has no alias {alias!r}; it has: {aliases or 'none'}; versions: {versions}; "
        f"to set it: paretrim promote {name} --version N --alias {alias}"
    )
