"""Names of registered models, their aliases, and how a command line names one of their versions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controller.errors import UsageError
from controller.job import NAME_PATTERN
from controller.problems import show
from controller.registry import CHAMPION

_ALIAS = re.compile(r"(?!v\d+$)(?!latest$)[A-Za-z0-9_-]{1,64}", re.IGNORECASE)
_MODEL = re.compile(r"(?P<name>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>[0-9]{1,9}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Where an artifact is to be registered.

    Attributes:
        name: Name of the model; None takes the study's.
        alias: Alias that stands for the new version from then on.
        tracking_uri: Tracking URI of MLflow; None takes the job's.
    """

    name: str | None = None
    alias: str = CHAMPION
    tracking_uri: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_model_name(self.name)
        check_alias(self.alias)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """A version of a registered model, by its number or by an alias.

    Attributes:
        name: Name of the model.
        alias: Alias of the version; None where a number is given.
        version: Number of the version; None where an alias is given.
    """

    name: str
    alias: str | None
    version: str | None


def check_model_name(name: str) -> str:
    """Return the name of a registered model if it is one.

    Raises:
        UsageError: It has characters that MLflow, a path or an address can't have.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name.endswith("\n"):
        rule = "1 to 64 letters, digits, dots, dashes and underscores, not starting with a dot"
        raise UsageError(f"the name of a registered model has {rule}; got {show(name)}; give another")
    return name


def check_alias(alias: str) -> str:
    """Return an alias if it is one.

    Raises:
        UsageError: MLflow does not allow it.
    """
    if not _ALIAS.fullmatch(alias):
        raise UsageError(
            "an alias has 1 to 64 letters, digits, dashes and underscores, and is neither 'latest' nor a number behind "
            f"a v, which MLflow reserves; got {show(alias)}; for example {CHAMPION}"
        )
    return alias


def parse_model(text: str) -> ModelReference:
    """Read NAME (its champion), NAME@ALIAS or NAME/VERSION.

    Raises:
        UsageError: It is none of them.
    """
    asked = _MODEL.fullmatch(text)
    if asked is None:
        raise UsageError(f"a model is a folder, NAME, NAME@ALIAS or NAME/VERSION; got {show(text)}")
    name, version = check_model_name(asked["name"]), asked["version"]
    alias = check_alias(asked["alias"] or CHAMPION) if version is None else None
    return ModelReference(name=name, alias=alias, version=version)
