"""Commands on latency tables: list, show, check, diff, merge, energy, import."""

from pathlib import Path
from typing import Annotated

import typer

from controller.cli.errors import reports_errors, stop
from controller.cli.exit_codes import ExitCode
from controller.cli.job_commands import AllowForeignTable, Extrapolate, for_planning
from controller.cli.options import AsJson
from controller.cli.text import print_json, stdout_console, stdout_for_results

TableFile = Annotated[
    Path, typer.Argument(metavar="TABLE", help="Latency table, JSON, or shipped:NAME.", show_default=False)
]
OtherFile = Annotated[Path, typer.Argument(metavar="OTHER", help="Another latency table.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="New latency table.", show_default=False)]


@reports_errors
def list_(as_json: AsJson = False) -> None:
    """List the latency tables that come with Paretrim, and whether they hold on this machine."""
    from controller.cli.render_tables import render_shipped
    from controller.tables.tools import list_tables

    tables = list_tables()
    if as_json:
        print_json({"tables": [table.to_dict() for table in tables]})
    else:
        render_shipped(stdout_console(), tables)


@reports_errors
def show(table: TableFile, as_json: AsJson = False) -> None:
    """Show what a latency table holds: device, provenance, rows by kind, corrections with their errors."""
    from controller.cli.render_tables import render_table
    from controller.tables.tools import show_table

    report = show_table(table)
    if as_json:
        print_json(report.to_dict())
    else:
        render_table(stdout_console(), report)


@reports_errors
def check(
    table: TableFile,
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="JOB", help="Job that the table must answer for.", show_default=False),
    ] = None,
    allow_foreign_table: AllowForeignTable = False,
    extrapolate: Extrapolate = False,
    as_json: AsJson = False,
) -> None:
    """Check a latency table's form, checksums and values, and whether a search of a job would take it."""
    from controller.cli.render_tables import render_check
    from controller.tables.tools import check_table

    job = None
    if space is not None:
        from controller.job_file import load_job

        job = for_planning(load_job(space), allow_foreign_table=allow_foreign_table, allow_extrapolation=extrapolate)
    with stdout_for_results():
        report = check_table(table, job)
    if as_json:
        print_json(report.to_dict())
    else:
        render_check(stdout_console(), report)
    if report.coverage is not None and report.coverage.refusal is not None:
        stop(f"a search of {report.coverage.study} refuses this table: {report.coverage.refusal}", ExitCode.PREFLIGHT)


@reports_errors
def diff(table: TableFile, other: OtherFile, as_json: AsJson = False) -> None:
    """Compare two latency tables: device, runtime and threads, and the ratio of their times by kind of operator."""
    from controller.cli.render_tables import render_diff
    from controller.tables.tools import compare_files

    comparison = compare_files(table, other)
    if as_json:
        print_json(comparison.to_dict())
    else:
        render_diff(stdout_console(), comparison)


@reports_errors
def merge(table: TableFile, other: OtherFile, out: Out, as_json: AsJson = False) -> None:
    """Join two latency tables of one device, runtime and target; of two rows the one with more repeats stays."""
    from controller.cli.render_tables import render_written
    from controller.tables.tools import merge_files

    written = merge_files(table, other, out)
    if as_json:
        print_json(written.to_dict())
    else:
        render_written(stdout_console(), written)


@reports_errors
def energy(
    table: TableFile,
    coefficients: Annotated[
        Path,
        typer.Option("--coefficients", metavar="FILE", help="What operations cost, YAML or JSON.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="New latency table.", show_default="changes TABLE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a latency table state the energy of single operations on its device, with their source."""
    from controller.cli.render_tables import render_written
    from controller.tables.energy import state_energy

    with stdout_for_results():
        written = state_energy(table, coefficients, out)
    if as_json:
        print_json(written.to_dict())
    else:
        render_written(stdout_console(), written)


@reports_errors
def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File of times, CSV.", show_default=False)],
    mapping: Annotated[
        Path,
        typer.Option("--mapping", metavar="MAP", help="What its columns mean, YAML or JSON.", show_default=False),
    ],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Make a latency table of times that somebody else measured."""
    from controller.cli.render_tables import render_written
    from controller.tables.tools import import_file

    written = import_file(source, mapping, out)
    if as_json:
        print_json(written.to_dict())
    else:
        render_written(stdout_console(), written)
