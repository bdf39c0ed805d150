"""The command that serves a study's page: dashboard."""

from typing import Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.options import StorageUrl, StudyName, storage_or_default
from controller.cli.text import print_lines, stdout_console


@reports_errors
def dashboard(
    study: StudyName,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0 takes a free one.")
    ] = 8080,
    storage: StorageUrl = None,
) -> None:
    """Serve a study as it stands with optuna-dashboard, on this machine only, until Ctrl-C."""
    from controller.job import check_study_name

    check_study_name(study)
    from controller.dashboard import run_dashboard

    def say(address: str) -> None:
        print_lines(stdout_console(), f"{study}: {address} (Ctrl-C ends it; start it again to see later trials)")

    try:
        run_dashboard(study, storage_or_default(storage), port=port, on_ready=say)
    except KeyboardInterrupt:
        return
