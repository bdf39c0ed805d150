"""Commands on jobs of a cluster: submit, list, status, logs, stop, resume."""

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.errors import reports_errors
from controller.cli.errors import stop as end_with
from controller.cli.exit_codes import ExitCode
from controller.cli.job_commands import AllowForeignTable, Extrapolate, JobFile, for_planning
from controller.cli.options import AsJson
from controller.cli.text import print_json, print_lines, stdout_console

if TYPE_CHECKING:
    from controller.jobs.cluster import Cluster
    from controller.jobs.records import SubmitReport

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        envvar=["PARETRIM_ADDRESS", "RAY_API_SERVER_ADDRESS"],
        help="Dashboard of the Ray cluster, http://HEAD:8265.",
        show_default=False,
    ),
]
JobReference = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Id of a job, or its name for the newest of that name.", show_default=False),
]
LogForm = Annotated[
    str | None,
    typer.Option(
        "--log", envvar="PARETRIM_LOG", help="Form of its log: text or json.", show_default="the cluster's, else text"
    ),
]


@reports_errors
def submit(
    job: JobFile,
    address: Address = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Database as the cluster reaches it, without a password.",
            show_default="the job's, else PARETRIM_STORAGE of the cluster",
        ),
    ] = None,
    workdir: Annotated[
        str | None,
        typer.Option(
            "--workdir",
            metavar="DIR",
            help="Folder on the cluster for tables, variants and reports.",
            show_default="PARETRIM_HOME of the cluster, else the home folder there",
        ),
    ] = None,
    same_files: Annotated[
        bool | None,
        typer.Option(
            "--same-files/--other-files",
            help="Whether the cluster sees this machine's files under the same paths.",
            show_default="same files for a loopback address",
        ),
    ] = None,
    cpus: Annotated[
        float, typer.Option("--cpus", min=0.0, max=64.0, help="CPU cores that the job's controller reserves.")
    ] = 0.1,
    replace: Annotated[
        bool, typer.Option("--replace", help="Forget ended jobs of this name that had another content.")
    ] = False,
    log: LogForm = None,
    as_json: AsJson = False,
    allow_foreign_table: AllowForeignTable = False,
    extrapolate: Extrapolate = False,
) -> None:
    """Run a search on a Ray cluster, so that this terminal may be closed. The same job again changes nothing."""
    from controller.jobs.package import JobPackage, check_address, is_this_machine, pack_file

    check_address(address)
    _check_log(log)
    shared = is_this_machine(str(address)) if same_files is None else same_files
    package = pack_file(job, same_files=shared, storage=storage)
    allowed = for_planning(package.job, allow_foreign_table=allow_foreign_table, allow_extrapolation=extrapolate)
    package = JobPackage.of(allowed)
    from controller.jobs import submission

    report = submission.submit(_connect(address), package, cpus=cpus, workdir=workdir, replace_ended=replace, log=log)
    _show_report(report, as_json=as_json)


@reports_errors
def list_(address: Address = None, as_json: AsJson = False) -> None:
    """List the jobs of a cluster, the newest first."""
    from controller.cli.render_jobs import render_jobs
    from controller.jobs.records import JobList
    from controller.jobs.submission import jobs_of

    cluster = _connect(address)
    found = JobList(address=cluster.address, jobs=tuple(jobs_of(cluster)))
    if as_json:
        print_json(found.to_dict())
    else:
        render_jobs(stdout_console(), found)


@reports_errors
def status(
    job: JobReference,
    address: Address = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            envvar="PARETRIM_STORAGE",
            help="Database as it is reached from here.",
            show_default="the job's",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a job: what the cluster does with it, and trials, front and failures from its database."""
    from controller.cli.render_jobs import render_status
    from controller.jobs.identity import check_job_reference

    check_job_reference(job)
    from controller.jobs.study_status import job_status
    from controller.jobs.submission import find_job

    found = job_status(find_job(_connect(address), job), storage)
    if as_json:
        print_json(found.to_dict())
    else:
        render_status(stdout_console(), found)


@reports_errors
def logs(
    job: JobReference,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, help="Which run of the job.", show_default="the newest")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help='Print each line as {"line": ...}.')] = False,
) -> None:
    """Print what a job has printed. Ctrl-C ends the printing, not the job."""
    from controller.cli.render_jobs import print_log
    from controller.jobs.identity import check_job_reference
    from controller.jobs.submission import attempt_of, find_job

    check_job_reference(job)
    cluster = _connect(address)
    run = attempt_of(find_job(cluster, job), attempt)
    if follow and not run.state.is_ended:
        print_log(stdout_console(), cluster.follow(run.submission_id), as_json=as_json)
    else:
        print_log(stdout_console(), [cluster.log(run.submission_id)], as_json=as_json)


@reports_errors
def stop(
    job: JobReference,
    address: Address = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0.0, help="Longest time to wait for its end, in seconds; 0 does not wait.")
    ] = 330.0,
    as_json: AsJson = False,
) -> None:
    """Stop a job: trials at work finish, everything is saved, `paretrim resume` goes on."""
    from controller.jobs import submission
    from controller.jobs.identity import check_job_reference

    check_job_reference(job)
    attempt = submission.stop(_connect(address), job, wait_s=wait)
    if as_json:
        print_json(attempt.to_dict())
    elif attempt.state.is_ended:
        print_lines(stdout_console(), f"{attempt.job_id} has {attempt.state}; every finished trial is kept")
        if attempt.state != "succeeded":
            print_lines(stdout_console(), f"to go on: paretrim resume {attempt.job_id}")
    else:
        print_lines(stdout_console(), f"{attempt.job_id} was told to stop, and is still {attempt.state}")
    if wait and not attempt.state.is_ended:
        end_with(f"it has not ended within {wait:g} s", ExitCode.FAILED, remedy=f"look at `paretrim logs {job}`")


@reports_errors
def resume(job: JobReference, address: Address = None, log: LogForm = None, as_json: AsJson = False) -> None:
    """Go on with a job that was stopped or has failed, as the next attempt of the same id."""
    from controller.jobs import submission
    from controller.jobs.identity import check_job_reference

    check_job_reference(job)
    _check_log(log)
    _show_report(submission.resume(_connect(address), job, log=log), as_json=as_json)


def _connect(address: str | None) -> "Cluster":
    from controller.jobs.cluster import Cluster

    return Cluster(address)


def _check_log(log: str | None) -> None:
    from controller.log_lines import check_form

    if log is not None:
        check_form(log)


def _show_report(report: "SubmitReport", *, as_json: bool) -> None:
    from controller.cli.render_jobs import render_report

    if as_json:
        print_json(report.to_dict())
    else:
        render_report(stdout_console(), report)
