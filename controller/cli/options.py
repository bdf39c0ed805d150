"""Options that several commands share."""

from typing import Annotated

import typer

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
