"""The command that checks a model in use on new data: recheck."""

from typing import Annotated

import typer

from controller.cli.errors import reports_errors, resumable
from controller.cli.exit_codes import ExitCode
from controller.cli.options import AsJson, StorageUrl, storage_or_default
from controller.cli.registry_commands import TrackingUri, tracking_or_default
from controller.cli.text import print_json, stderr_console, stdout_console, stdout_for_results
from controller.errors import UsageError


@reports_errors
def recheck(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A registered model, NAME (its champion), NAME@ALIAS or NAME/VERSION; or an artifact's folder.",
            show_default=False,
        ),
    ],
    data: Annotated[str, typer.Option("--data", metavar="FILE", help="New rows, as the job's: a file or a hub id.")],
    input_column: Annotated[
        str | None, typer.Option("--input", metavar="COLUMN", help="Column of the input.", show_default="the job's")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="Column of the label.", show_default="the job's")
    ] = None,
    examples: Annotated[
        int | None, typer.Option("--examples", min=1, help="Most rows that are scored.", show_default="all")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0,
            max=1,
            help="Largest loss against the dense model: 0.02 is two points.",
            show_default="the job's max_quality_drop",
        ),
    ] = None,
    resubmit: Annotated[
        bool,
        typer.Option(
            "--resubmit",
            help="If it is below the constraint, search anew on the new data, beginning with the old front's policies.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the new study.", show_default="the old one's and a digest of the data"),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Score a model in use on new data: exit code 0 if it meets its constraint, 6 if not, 7 if that can't be told."""
    from controller.job import check_study_name

    if name is not None:
        if not resubmit:
            raise UsageError("--name is that of the study that --resubmit searches; add --resubmit")
        check_study_name(name)
    from controller import operations
    from controller.cli.progress import ProgressView
    from controller.cli.render_check import render_check
    from controller.rechecking.model_check import NewData
    from controller.rechecking.report import Verdict
    from controller.rechecking.resubmission import Resubmission

    uri = tracking_or_default(tracking_uri)
    again = Resubmission(storage=storage_or_default(storage), tracking_uri=uri, name=name) if resubmit else None
    with resumable("every finished trial is kept"), stdout_for_results(), ProgressView(stderr_console()) as view:
        check = operations.run_model_check(
            model,
            NewData(source=data, input=input_column, label=label_column, examples=examples),
            view,
            tracking_uri=uri,
            max_drop=max_drop,
            resubmission=again,
        )
    if as_json:
        print_json(check.to_dict())
    else:
        render_check(stdout_console(), check)
    code = {Verdict.BELOW: ExitCode.BELOW_CONSTRAINT, Verdict.CANNOT_TELL: ExitCode.CANNOT_TELL}.get(check.verdict)
    if code is not None:
        raise typer.Exit(int(code))
