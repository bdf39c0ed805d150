"""Commands on a job file: validate, schema, search."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import reports_errors, resumable, stop, stop_resumable
from controller.cli.exit_codes import ExitCode
from controller.cli.options import AsJson
from controller.cli.text import print_json, print_next, stderr_console, stdout_console, stdout_for_results
from controller.jobs.entrypoint import JOB_ID_VARIABLE

if TYPE_CHECKING:
    from controller.job import JobSpec

AllowForeignTable = Annotated[
    bool,
    typer.Option("--allow-foreign-table", help="Plan with a latency table of other hardware; every result says so."),
]
Extrapolate = Annotated[
    bool,
    typer.Option("--extrapolate", help="Plan beyond the sizes that were measured; every result says so."),
]
JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="Job file, YAML or JSON.", show_default=False)]


@reports_errors
def validate(
    job: JobFile,
    as_json: AsJson = False,
    data: Annotated[
        bool, typer.Option("--data", help="Read and encode every row too, as a search does first.")
    ] = False,
    allow_foreign_table: AllowForeignTable = False,
    extrapolate: Extrapolate = False,
) -> None:
    """Check a job and show what it would do: units, size of the space, cost of the dense model, reachable bounds."""
    from controller.job_file import load_job

    spec = for_planning(load_job(job), allow_foreign_table=allow_foreign_table, allow_extrapolation=extrapolate)
    from controller import operations
    from controller.cli.render import render_plan

    with stdout_for_results():
        plan = operations.plan(spec, read_data=data)
    if as_json:
        print_json(plan.to_dict())
    else:
        render_plan(stdout_console(), plan)
    if not as_json and plan.constraints_reachable:
        print_next(stdout_console(), f"paretrim search {shlex.quote(str(job))}")
    if not plan.constraints_reachable:
        lines = plan.unreachable or ("no policy of the space meets the constraints",)
        stop("\n".join(lines), ExitCode.PREFLIGHT, remedy="widen the bound, or offer smaller choices in the space")


@reports_errors
def schema() -> None:
    """Print the JSON Schema of job files, for editors."""
    from controller.job import job_schema

    print_json(job_schema())


@reports_errors
def search(
    job: JobFile,
    as_json: AsJson = False,
    allow_foreign_table: AllowForeignTable = False,
    extrapolate: Extrapolate = False,
) -> None:
    """Search, and print the front. The same command continues a search that was stopped."""
    from controller.job_file import load_job
    from controller.job_origin import JobOrigin
    from controller.where_kept import where_kept

    spec = for_planning(load_job(job), allow_foreign_table=allow_foreign_table, allow_extrapolation=extrapolate)
    spec = where_kept(spec, os.environ)
    if JOB_ID_VARIABLE in os.environ:
        # The file of a submitted job vanishes with it, and is not the one that its user has.
        spec = spec.of(JobOrigin())
    from controller import operations
    from controller.cli.progress import progress_view
    from controller.cli.render import commands_after_search, render_front

    kept, again = "every finished trial is kept", _resume_command(job)
    with resumable(kept, again), stdout_for_results(), progress_view(stderr_console()) as view:
        result = operations.run_search(spec, view)
    if as_json:
        print_json(result.to_dict())
    else:
        console = stdout_console()
        render_front(console, result)
        print_next(console, *commands_after_search(result))
    if result.interrupted:
        stop_resumable(kept, again)
    if not result.feasible:
        remedy = "widen the constraints, offer other choices, or search for longer (search.trials)"
        stop("no policy meets the constraints", ExitCode.NO_FEASIBLE_TRIAL, remedy=remedy)


def _resume_command(job: Path) -> str:
    """The command that goes on with a search: of a submitted job where this one runs for it."""
    submitted = os.environ.get(JOB_ID_VARIABLE)
    return f"paretrim resume {submitted}" if submitted else f"paretrim search {shlex.quote(str(job))}"


def for_planning(job: "JobSpec", **allowed: bool) -> "JobSpec":
    """Return the job with what the command line allows beside what the job does."""
    granted = {name: True for name, value in allowed.items() if value}
    also = tuple(change.model_copy(update=granted) for change in job.also)
    return job.model_copy(update={"target": job.target.model_copy(update=granted), "also": also})
