"""The `paretrim` program: its commands and what holds for all of them."""

import importlib
import sys
from typing import Annotated

import typer

from controller.cli import (
    cluster_commands,
    dashboard_command,
    database_commands,
    explain_command,
    inspect_commands,
    job_commands,
    profile_command,
    recheck_command,
    registry_commands,
    report_commands,
    retarget_command,
    scale_command,
    serve_command,
    study_commands,
    table_commands,
    target_commands,
)
from controller.cli.errors import DEBUG
from controller.cli.exit_codes import ExitCode, exit_code_help

app = typer.Typer(
    name="paretrim",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=exit_code_help(),
)
tables = typer.Typer(no_args_is_help=True, help="Latency tables: list, show, check, compare, join, import.")
database = typer.Typer(no_args_is_help=True, help="The database of studies.")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"paretrim {version('paretrim')}")
        raise typer.Exit


@app.callback()
def paretrim(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Search how much of each part of a model to prune and how few bits to give it, and export what you pick."""
    DEBUG.set(debug)


app.command()(job_commands.validate)
app.command()(job_commands.schema)
app.command()(profile_command.profile)
app.command()(profile_command.calibrate_table)
app.command()(target_commands.targets)
app.command()(job_commands.search)
app.command()(serve_command.serve_local)
app.command()(cluster_commands.submit)
app.command("list")(cluster_commands.list_)
app.command()(cluster_commands.status)
app.command()(cluster_commands.logs)
app.command()(cluster_commands.stop)
app.command()(cluster_commands.resume)
app.command()(scale_command.scale)
app.command()(study_commands.front)
app.command()(dashboard_command.dashboard)
app.command()(inspect_commands.policy)
app.command()(inspect_commands.compare)
app.command()(study_commands.export)
app.command()(registry_commands.register)
app.command()(registry_commands.promote)
app.command()(registry_commands.rollback)
app.command()(recheck_command.recheck)
app.command()(retarget_command.retarget)
app.command()(explain_command.explain)
app.command()(report_commands.sensitivity)
app.command()(report_commands.sweep)
tables.command("list")(table_commands.list_)
tables.command()(table_commands.show)
tables.command()(table_commands.check)
tables.command()(table_commands.diff)
tables.command()(table_commands.merge)
tables.command()(table_commands.energy)
tables.command("import")(table_commands.import_)
app.add_typer(tables, name="table")
database.command()(database_commands.upgrade)
database.command()(database_commands.check)
app.add_typer(database, name="db")


def main() -> None:
    """Run the program, if the packages that Python finds are Paretrim's own."""
    try:
        importlib.import_module("paretrim")
    except ImportError as error:
        typer.echo(str(error), err=True)
        sys.exit(int(ExitCode.FAILED))
    app()
