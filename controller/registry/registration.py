"""What changes the registry: a verified artifact becomes a version, an alias moves forward, or back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from controller.errors import UsageError
from controller.registry import CHAMPION
from controller.registry.alias_history import AliasHistory, Move
from controller.registry.client import aliases_of, find_version, no_such_alias, open_registry, version_numbers
from controller.registry.names import check_alias, check_model_name
from controller.registry.report import RegisteredVersion
from controller.registry.versions import create_version, describe_version
from workers.export.verified import read_verified

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HISTORY = "paretrim.alias."


def check_reachable(uri: str) -> None:
    """Refuse before anything that takes long is begun.

    Raises:
        RegistryError: The registry does not answer.
    """
    with open_registry(uri) as client:
        client.search_registered_models(max_results=1)


def run_register(folder: Path, uri: str, *, name: str | None = None, alias: str = CHAMPION) -> RegisteredVersion:
    """Register a verified artifact as a new version of a model, and let an alias stand for it.

    Args:
        folder: The artifact.
        uri: Tracking URI of MLflow.
        name: Name of the model; None takes the study's.
        alias: Alias that stands for the version from now on.

    Raises:
        UnverifiedError: The folder is no artifact, or has changed since it was verified.
        NotServableError: The artifact's model has no form that answers requests.
        RegistryError: MLflow does not take it.
    """
    check_alias(alias)
    artifact = read_verified(folder)
    name = check_model_name(name or artifact.report.study)
    with open_registry(uri) as client:
        version = create_version(client, uri, artifact, name)
        replaced = _move(client, name, alias, str(version.version), Move.REGISTERED)
        return describe_version(version, uri, alias=alias, replaced=replaced)


def run_promote(name: str, uri: str, *, version: int, alias: str = CHAMPION) -> RegisteredVersion:
    """Let an alias stand for a version.

    Raises:
        UsageError: No such model or version, or it is not one that Paretrim has verified.
        RegistryError: MLflow does not answer.
    """
    check_model_name(name)
    check_alias(alias)
    with open_registry(uri) as client:
        found = find_version(client, name, str(version))
        replaced = _move(client, name, alias, str(found.version), Move.PROMOTED)
        return describe_version(found, uri, alias=alias, replaced=replaced)


def run_rollback(name: str, uri: str, *, alias: str = CHAMPION) -> RegisteredVersion:
    """Let an alias stand for the version that it stood for before; again, for the one before that.

    Raises:
        UsageError: No such model, or the alias stood for no other version before.
        RegistryError: MLflow does not answer.
    """
    check_model_name(name)
    check_alias(alias)
    with open_registry(uri) as client:
        holder, history = _history(client, name, alias)
        if holder is None:
            raise no_such_alias(client, name, alias)
        existing = version_numbers(client, name)
        earlier = [number for number in history.holders()[:-1] if number in existing and number != holder]
        if not earlier:
            raise UsageError(
                f"a rollback goes to the version that the alias stood for before; {alias!r} of {name!r} has stood for "
                f"version {holder} only; to take one of {', '.join(existing)}: paretrim promote {name} --version N"
            )
        version = find_version(client, name, earlier[-1])
        replaced = _move(client, name, alias, str(version.version), Move.ROLLED_BACK)
        return describe_version(version, uri, alias=alias, replaced=replaced)


def _move(client: MlflowClient, name: str, alias: str, version: str, move: Move) -> str | None:
    """Set an alias and note it; return the version that it stood for, where that is another one."""
    holder, history = _history(client, name, alias)
    client.set_registered_model_alias(name, alias, version)
    client.set_registered_model_tag(name, _HISTORY + alias.lower(), history.then(version, move).text())
    return None if holder == version else holder


def _history(client: MlflowClient, name: str, alias: str) -> tuple[str | None, AliasHistory]:
    """The version that an alias stands for, and those that it stood for before."""
    holder = aliases_of(client, name).get(alias.lower())
    tags = client.get_registered_model(name).tags
    return holder, AliasHistory.read(tags.get(_HISTORY + alias.lower()), holder)
