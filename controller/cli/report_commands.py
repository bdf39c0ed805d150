"""Commands that report on a job's model: sensitivity, sweep."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.job_commands import JobFile
from controller.cli.options import AsJson
from controller.cli.text import print_json, stderr_console, stdout_console, stdout_for_results


@reports_errors
def sensitivity(
    job: JobFile,
    measure: Annotated[
        bool, typer.Option("--measure", help="Score what the search did not probe, on a sixteenth of the examples.")
    ] = False,
    fisher: Annotated[
        bool, typer.Option("--fisher", help="Compute the Fisher information of each unit's weights; kept for later.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the table to a file.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write table, heat map (HTML, PNG) and JSON.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what each unit loses when it alone is pruned or quantized, and its share of latency and size."""
    from controller.job_file import load_job

    spec = load_job(job)
    from controller import operations
    from controller.cli.progress import ProgressView
    from controller.cli.render_reports import render_sensitivity

    with stdout_for_results(), ProgressView(stderr_console()) as view:
        report = operations.run_sensitivity(spec, view, measure=measure, fisher=fisher, out=out, csv=csv)
    if as_json:
        print_json(report.to_dict())
    else:
        render_sensitivity(stdout_console(), report)


@reports_errors
def sweep(
    job: JobFile,
    keep: Annotated[
        str, typer.Option("--keep", metavar="RATIOS", help="Shares of heads and channels that stay.")
    ] = "0.9,0.7,0.5,0.3",
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            help="Tolerated loss of quality: 0.02 is two points.",
            show_default="the job's max_quality_drop, or 0.01",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="One number format for all.", show_default="the job's formats")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show quality, latency and memory of uniform pruning, and how far a tolerated loss lets it go."""
    from controller.job_file import load_job
    from controller.sensitivity.sweep_report import check_sweep, parse_keep

    spec = load_job(job)
    ratios = parse_keep(keep)
    check_sweep(spec, keep=ratios, max_drop=max_drop, format=format)
    from controller import operations
    from controller.cli.progress import ProgressView
    from controller.cli.render_reports import render_sweep

    with stdout_for_results(), ProgressView(stderr_console()) as view:
        result = operations.run_sweep(spec, view, keep=ratios, max_drop=max_drop, format=format)
    if as_json:
        print_json(result.to_dict())
    else:
        render_sweep(stdout_console(), result)
