"""The command that says where the time of a policy goes: explain."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.job_commands import AllowForeignTable, Extrapolate
from controller.cli.options import AsJson, StorageUrl, StudyName, checked, storage_or_default
from controller.cli.text import print_json, stdout_console, stdout_for_results


@reports_errors
def explain(
    study: StudyName,
    trial: Annotated[
        int, typer.Option("--trial", min=0, help="Number of the trial; 0 is the dense model.", show_default=False)
    ],
    table: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Another latency table.", show_default="the study's"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for page, picture and JSON.", show_default="the study's"),
    ] = None,
    allow_foreign_table: AllowForeignTable = False,
    extrapolate: Extrapolate = False,
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Show where the time of a policy goes by unit and operator, and which choices buy none here or could save."""
    from controller.job import check_study_name
    from controller.retargeting.target_change import TargetChange

    check_study_name(study)
    change = checked(
        TargetChange,
        {"table": table, "allow_foreign_table": allow_foreign_table, "allow_extrapolation": extrapolate},
    )
    from controller import operations
    from controller.cli.render_targets import render_explain

    with stdout_for_results():
        report = operations.run_explain(study, storage_or_default(storage), trial=trial, change=change, out=out)
    if as_json:
        print_json(report.to_dict())
    else:
        render_explain(stdout_console(), report)
