"""Changes what a search that is running does: `paretrim scale`."""

from typing import Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.options import AsJson, StorageUrl, StudyName, storage_or_default
from controller.cli.text import print_json, print_lines, stdout_console
from controller.errors import UsageError


@reports_errors
def scale(
    study: StudyName,
    parallel: Annotated[
        int | None, typer.Option("--parallel", min=1, help="Workers that there should be.", show_default=False)
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials that there should be in all.", show_default=False)
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Finish what is at work, save, and end.")] = False,
    as_json: AsJson = False,
    storage: StorageUrl = None,
) -> None:
    """Change how many workers and trials a running search has, or stop it. The job file stays as it is."""
    from controller.job import check_study_name

    check_study_name(study)
    if parallel is None and trials is None and not stop:
        raise UsageError("say what to change: --parallel, --trials or --stop")
    from controller.live_controls import ask_running

    asked = ask_running(study, storage_or_default(storage), parallel=parallel, trials=trials, stop=stop)
    if as_json:
        print_json(asked)
        return
    wishes = [f"{asked[name]} {name}" for name in ("parallel", "trials") if asked[name] is not None]
    wishes += ["a stop"] if asked["stop"] else []
    print_lines(stdout_console(), f"asked {asked['holder']} for {' and '.join(wishes)}; it hears of it within seconds")
