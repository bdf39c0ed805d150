"""Commands on a finished or stopped study: front, export."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.options import AsJson, StorageUrl, StudyName, storage_or_default
from controller.cli.text import print_json, print_next, stdout_console, stdout_for_results
from controller.errors import UsageError
from controller.registry import CHAMPION


@reports_errors
def front(
    study: StudyName,
    pick: Annotated[
        str | None,
        typer.Option("--pick", help='Say which one a rule takes: "weighted alpha=0.7".', show_default=False),
    ] = None,
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Print the front of a study again, and what a rule picks from it."""
    from controller.job import check_study_name

    check_study_name(study)
    if pick is not None:
        from controller.pick import parse_pick

        parse_pick(pick)
    from controller import operations
    from controller.cli.render import commands_after_front, render_front
    from controller.cli.render_drawing import render_drawing

    with stdout_for_results():
        result = operations.load_front(study, storage_or_default(storage), pick=pick)
    if as_json:
        print_json(result.to_dict())
    else:
        console = stdout_console()
        render_front(console, result)
        render_drawing(console, result)
        print_next(console, *commands_after_front(result))


@reports_errors
def export(
    study: StudyName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the artifact.", show_default=False)],
    pick: Annotated[
        str | None, typer.Option("--pick", help='What to take: "fastest within 1% quality".', show_default=False)
    ] = None,
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="Number of a trial.", show_default=False)] = None,
    recover: Annotated[
        bool, typer.Option("--recover", help="Train it first, as the job's section recovery says.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the training examples.", show_default=False)
    ] = None,
    tune: Annotated[int, typer.Option("--tune", min=1, help="Trainings to choose from.")] = 1,
    early_exit: Annotated[
        bool, typer.Option("--early-exit", help="Let examples leave early whose class is clear by then (classifiers).")
    ] = False,
    exit_tolerance: Annotated[
        float | None,
        typer.Option(
            "--exit-tolerance", metavar="POINTS", help="Quality that may be lost by that.", show_default="0.5"
        ),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Make it a version of an MLflow model once it is verified.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the registered model.", show_default="the study's"),
    ] = None,
    alias: Annotated[
        str | None,
        typer.Option("--alias", help="Alias that stands for the new version.", show_default="champion"),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", metavar="URI", help="MLflow.", show_default="the job's")
    ] = None,
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Export a policy as a model, and verify it: the model is loaded afresh, scored and timed."""
    from controller.early_exit_options import DEFAULT_POINTS, EarlyExitOptions
    from controller.job import check_study_name
    from controller.recovery.options import RecoveryOptions
    from controller.registry.names import Registration

    check_study_name(study)
    if (pick is None) == (trial is None):
        raise UsageError('an export takes either --pick or --trial; for example --pick "fastest within 1% quality"')
    if not recover and (epochs is not None or tune > 1):
        raise UsageError("--epochs and --tune say how a model is trained; add --recover")
    if not early_exit and exit_tolerance is not None:
        raise UsageError("--exit-tolerance says what an early exit may lose; add --early-exit")
    if not register and not (name is None and alias is None and tracking_uri is None):
        raise UsageError("--name, --alias and --tracking-uri say where a model is registered; add --register")
    recovery = RecoveryOptions(epochs=epochs, tune=tune) if recover else None
    exit_options = None
    if early_exit:
        exit_options = EarlyExitOptions(tolerance_points=DEFAULT_POINTS if exit_tolerance is None else exit_tolerance)
    registration = None
    if register:
        registration = Registration(name=name, alias=alias or CHAMPION, tracking_uri=tracking_uri)
    from controller import operations
    from controller.cli.render import render_export

    with stdout_for_results():
        report = operations.run_export(
            study,
            storage_or_default(storage),
            pick=pick,
            trial=trial,
            out=out,
            recovery=recovery,
            early_exit=exit_options,
            registration=registration,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        render_export(stdout_console(), report)
