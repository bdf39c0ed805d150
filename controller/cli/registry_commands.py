"""Commands on registered models: register, promote, rollback."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.options import AsJson
from controller.cli.text import print_json, stdout_console, stdout_for_results
from controller.registry import CHAMPION

Alias = Annotated[str, typer.Option("--alias", metavar="ALIAS", help="Alias that stands for the version in use.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow's server or SQLite file.",
        show_default="sqlite:///.paretrim/mlflow.db",
    ),
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered model.", show_default=False)]


def tracking_or_default(uri: str | None) -> str:
    """Return the tracking URI to use."""
    from controller.job import DEFAULT_TRACKING

    return uri or DEFAULT_TRACKING


@reports_errors
def register(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A verified artifact.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the model.", show_default="the study's")
    ] = None,
    alias: Alias = CHAMPION,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Register a verified artifact as a new version of an MLflow model; `export --register` does the same."""
    from controller.registry.names import check_alias, check_model_name

    check_alias(alias)
    if name is not None:
        check_model_name(name)
    from controller import operations
    from controller.cli.render_registry import render_version

    with stdout_for_results():
        version = operations.run_register(folder, tracking_or_default(tracking_uri), name=name, alias=alias)
    if as_json:
        print_json(version.to_dict())
    else:
        render_version(stdout_console(), version)


@reports_errors
def promote(
    name: ModelName,
    version: Annotated[int, typer.Option("--version", min=1, help="Number of the version.", show_default=False)],
    alias: Alias = CHAMPION,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Let an alias stand for a version of a registered model."""
    from controller.registry.names import check_alias, check_model_name

    check_model_name(name)
    check_alias(alias)
    from controller import operations
    from controller.cli.render_registry import render_version

    with stdout_for_results():
        done = operations.run_promote(name, tracking_or_default(tracking_uri), version=version, alias=alias)
    if as_json:
        print_json(done.to_dict())
    else:
        render_version(stdout_console(), done)


@reports_errors
def rollback(
    name: ModelName, alias: Alias = CHAMPION, tracking_uri: TrackingUri = None, as_json: AsJson = False
) -> None:
    """Let an alias stand for the version that it stood for before; again, for the one before that."""
    from controller.registry.names import check_alias, check_model_name

    check_model_name(name)
    check_alias(alias)
    from controller import operations
    from controller.cli.render_registry import render_version

    with stdout_for_results():
        done = operations.run_rollback(name, tracking_or_default(tracking_uri), alias=alias)
    if as_json:
        print_json(done.to_dict())
    else:
        render_version(stdout_console(), done)
