"""serve-local: a cluster, MLflow and a database on this machine, until Ctrl-C."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.options import AsJson
from controller.cli.text import print_json, print_lines, stderr_console, stdout_console

if TYPE_CHECKING:
    from controller.jobs.local.services import LocalServices, Running

_WATCH_S = 1.0


@reports_errors
def serve_local(
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Folder for the database, MLflow, tables, logs and token.")
    ] = Path(".paretrim"),
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of Ray's dashboard and jobs.")] = 8265,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", min=1, max=65535, help="Port of MLflow.")] = 5000,
    cpus: Annotated[
        int | None,
        typer.Option("--cpus", min=1, help="CPU cores that jobs share.", show_default="all of this machine"),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="GPUs that jobs share.", show_default="all of this machine")
    ] = None,
    postgresql: Annotated[
        bool, typer.Option("--postgresql", help="PostgreSQL as the database, where it is installed.")
    ] = False,
    drain: Annotated[
        float, typer.Option("--drain", min=0.0, help="Seconds that jobs may take to save and stop at Ctrl-C.")
    ] = 150.0,
    as_json: AsJson = False,
) -> None:
    """Start a Ray cluster, MLflow and a database on this machine, for loopback only; Ctrl-C ends them."""
    from controller.jobs.local.services import LocalOptions, local_services

    options = LocalOptions(
        folder=folder, port=port, mlflow_port=mlflow_port, cpus=cpus, gpus=gpus, postgresql=postgresql
    )
    print_lines(stderr_console(), f"starting Ray, MLflow and the database in {folder}")
    try:
        with local_services(options) as running:
            _show(running.services, as_json=as_json)
            try:
                while True:
                    running.check()
                    time.sleep(_WATCH_S)
            except KeyboardInterrupt:
                _stop_jobs(running, drain)
    except KeyboardInterrupt:
        pass
    print_lines(stderr_console(), "all services have ended")


def _show(services: "LocalServices", *, as_json: bool) -> None:
    if as_json:
        print_json(services.to_dict())
        return
    console = stdout_console()
    print_lines(console, f"jobs and dashboard  {services.address}")
    print_lines(console, f"MLflow              {services.mlflow}")
    print_lines(console, f"database            {services.storage}")
    print_lines(console, f"metrics             {services.metrics}")
    print_lines(console, f"logs                {services.logs}")
    print_lines(console, "in every terminal that is to use them:")
    for line in services.exports:
        print_lines(console, line)
    print_lines(console, "Ctrl-C ends them all")


def _stop_jobs(running: "Running", drain_s: float) -> None:
    """Let jobs at work save what they have; a second Ctrl-C does not wait for them."""
    asked = running.stop_jobs() if drain_s else []
    if not asked:
        return
    print_lines(stderr_console(), f"waiting for {', '.join(asked)} to save and stop; Ctrl-C again does not wait")
    deadline = time.monotonic() + drain_s
    while running.jobs_at_work() and time.monotonic() < deadline:
        time.sleep(_WATCH_S)
