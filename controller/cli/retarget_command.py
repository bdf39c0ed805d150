"""The command that moves a study to another target: retarget."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.errors import reports_errors, resumable
from controller.cli.job_commands import Extrapolate
from controller.cli.options import AsJson, StorageUrl, StudyName, checked, storage_or_default
from controller.cli.text import print_json, stderr_console, stdout_console, stdout_for_results

Table = Annotated[
    Path | None,
    typer.Option(
        "--table",
        metavar="FILE",
        help="Latency table of the other target, measured there.",
        show_default="measures this machine",
    ),
]
AllowForeignTable = Annotated[
    bool,
    typer.Option(
        "--allow-foreign-table",
        help="Plan with a table of another runtime or number of threads, or of other people's measurements; every "
        "result says so. A table of another device needs no leave.",
    ),
]


@reports_errors
def retarget(
    study: StudyName,
    table: Table = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Name of the target.", show_default="the table's or the study's")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", help="Threads of the runtime.", show_default="the table's or the study's"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            help="Examples in one call; with another number than the study's, scores are estimates until made again.",
            show_default="the study's",
        ),
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", help="Tokens of an example.", show_default="the study's")
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            "--evaluations",
            help="Policies that may be scored for what the new front lacks; 0 scores none.",
            show_default="6; 24 with another batch",
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option("--max-latency-ms", help="Bound on latency there.", show_default="the job's constraint"),
    ] = None,
    max_energy_mj: Annotated[
        float | None,
        typer.Option("--max-energy-mj", help="Bound on energy there.", show_default="the job's constraint"),
    ] = None,
    max_peak_memory_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-peak-memory-bytes",
            help="Bound on peak memory of activations there.",
            show_default="the job's constraint",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the result.", show_default="the study's and what differs"),
    ] = None,
    allow_foreign_table: AllowForeignTable = False,
    extrapolate: Extrapolate = False,
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Show the front of a study on another target, from the scores that it has. The same command goes on later."""
    from controller.job import check_study_name
    from controller.retargeting.target_change import TargetChange

    check_study_name(study)
    change = checked(
        TargetChange,
        {
            "name": target,
            "table": table,
            "threads": threads,
            "batch": batch,
            "sequence_length": sequence_length,
            "evaluations": evaluations,
            "max_latency_ms": max_latency_ms,
            "max_energy_mj": max_energy_mj,
            "max_peak_memory_bytes": max_peak_memory_bytes,
            "study": name,
            "allow_foreign_table": allow_foreign_table,
            "allow_extrapolation": extrapolate,
        },
    )
    from controller import operations
    from controller.cli.progress import ProgressView
    from controller.cli.render_targets import render_retarget

    with resumable("every finished trial is kept"), stdout_for_results(), ProgressView(stderr_console()) as view:
        report = operations.run_retarget(study, storage_or_default(storage), change, view)
    if as_json:
        print_json(report.to_dict())
    else:
        render_retarget(stdout_console(), report)
