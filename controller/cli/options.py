"""Options that several commands share."""

from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from controller.problems import JobError, describe_errors

M = TypeVar("M", bound=BaseModel)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to stdout.")]
StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of the study: the job's name.", show_default=False)
]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="PARETRIM_STORAGE",
        help="Database of the study; a password is safer in the environment than here.",
        show_default="sqlite:///.paretrim/paretrim.db",
    ),
]


def storage_or_default(url: str | None) -> str:
    """Return the database to use."""
    from controller.job import DEFAULT_STORAGE

    return url or DEFAULT_STORAGE


def checked(kind: type[M], values: dict[str, Any]) -> M:
    """Make a record from what the command line says.

    Raises:
        JobError: A value does not fit; lists all problems.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise JobError("the command line", describe_errors(error.errors(include_url=False), kind)) from None
