"""Shows jobs of a cluster to people."""

import json
from collections.abc import Iterable, Iterator

import typer
from rich.console import Console

from controller.cli.exit_codes import ExitCode
from controller.cli.text import clean, print_lines, print_table
from controller.jobs.records import Attempt, JobList, JobStatus, StudyStatus, SubmitOutcome, SubmitReport


def render_report(console: Console, report: SubmitReport) -> None:
    """Show what became of a submission, and what to type next."""
    job_id, attempt = report.job_id, report.attempt
    if report.outcome is SubmitOutcome.ALREADY_ENDED:
        print_lines(console, f"{job_id} was submitted before, and has {attempt.state}{_exit(attempt)}")
        if attempt.state == "succeeded":
            print_lines(console, f"look at it: paretrim status {job_id}")
        else:
            print_lines(console, f"to go on: paretrim resume {job_id}")
        return
    words = {
        SubmitOutcome.SUBMITTED: f"submitted {job_id}",
        SubmitOutcome.RESUMED: f"resumed {job_id}, attempt {attempt.number}",
        SubmitOutcome.ALREADY_ACTIVE: f"{job_id} is {attempt.state} already; nothing was submitted",
    }
    print_lines(console, words[report.outcome])
    print_lines(
        console, f"watch it: paretrim status {job_id}; paretrim logs -f {job_id}; end it: paretrim stop {job_id}"
    )


def render_jobs(console: Console, found: JobList) -> None:
    """Show the jobs of a cluster as a table."""
    if not found.jobs:
        print_lines(console, f"{found.address} has no jobs; `paretrim submit job.yaml` makes one")
        return
    rows = [
        (job.id, str(job.state), str(run.number), run.started or "-", run.ended or "-", run.user or "-")
        for job in found.jobs
        for run in (job.latest,)
    ]
    print_table(console, f"jobs at {found.address}", ("job", "state", "attempt", "started", "ended", "by"), rows)


def render_status(console: Console, status: JobStatus) -> None:
    """Show a job and its study."""
    attempt = status.job.latest
    print_lines(console, f"{status.job.id}: {attempt.state}, attempt {attempt.number}{_exit(attempt)}")
    print_lines(console, f"  started {attempt.started or '-'}, ended {attempt.ended or '-'}")
    if attempt.state == "failed" and attempt.message:
        print_lines(console, f"  {clean(attempt.message, most=400)}", style="red")
    if status.study is None:
        where = f" in {status.storage}" if status.storage else ""
        print_lines(console, f"study: unknown{where}: {status.study_missing}")
    else:
        for line in _study_lines(status.study):
            print_lines(console, line)
    if attempt.state in ("stopped", "failed"):
        print_lines(console, f"to go on: paretrim resume {status.job.id}")


def _study_lines(study: StudyStatus) -> Iterator[str]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(study.trials.items()))
    yield f"study: {study.state}, last written {study.updated}"
    yield f"  trials: {states or 'none'}; {study.trials_total} are asked for beside the baselines"
    volume = "" if study.hypervolume is None else f", hypervolume {study.hypervolume:.4f}"
    yield f"  front: {study.front_size} members{volume}"
    if study.best is not None:
        yield f"  best: {study.best}"
    for group in study.failures:
        yield f"  failed, {group.reason}: {group.count}; for example: {clean(group.example, most=200)}"


def _exit(attempt: Attempt) -> str:
    if attempt.exit_code is None:
        return ""
    meaning = next((f" ({code.meaning})" for code in ExitCode if code == attempt.exit_code), "")
    return f", exit code {attempt.exit_code}{meaning}"


def print_log(console: Console, pieces: Iterable[str], *, as_json: bool) -> None:
    """Print a log line by line as its pieces come."""
    for line in _lines(pieces):
        if as_json:
            typer.echo(json.dumps({"line": line}))
        else:
            print_lines(console, line)


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest
