"""The commands that measure: a latency table, and its correction on whole models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.errors import reports_errors, resumable
from controller.cli.options import AsJson, checked
from controller.cli.text import print_json, stderr_console, stdout_console, stdout_for_results
from controller.errors import UsageError

if TYPE_CHECKING:
    from controller.job import JobSpec
    from workers.model import ModelConfig

Model = Annotated[
    str | None, typer.Option("--model", help="Local folder or Hugging Face id.", show_default="the job's")
]
Space = Annotated[
    Path | None,
    typer.Option("--space", metavar="JOB", help="Job that gives model, space and workload.", show_default=False),
]
Task = Annotated[
    str | None,
    typer.Option("--task", help="Name of the model's task.", show_default="the job's, or text-classification"),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="Commit of the model on the hub.", show_default="the job's, of the job's model"),
]
Batch = Annotated[int | None, typer.Option("--batch", help="Examples in one call.", show_default="the job's, or 1")]
SequenceLength = Annotated[
    int | None,
    typer.Option("--sequence-length", help="Tokens of an example; left out for images.", show_default="the job's"),
]


def _above_0(minutes: float | None) -> float | None:
    if minutes is not None and not minutes > 0:
        raise typer.BadParameter(f"minutes are above 0; got {minutes:g}; leave the option out to have no limit")
    return minutes


DEFAULT_TASK = "text-classification"


BudgetMinutes = Annotated[
    float | None,
    typer.Option("--budget-minutes", help="Time for all of it, about.", show_default="no limit", callback=_above_0),
]


@reports_errors
def profile(
    model: Model = None,
    space: Space = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Latency table to write.", show_default="where the job's search looks for it"
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Name of the target.", show_default="the job's, or cpu-onnxruntime")
    ] = None,
    task: Task = None,
    revision: Revision = None,
    batch: Batch = None,
    sequence_length: SequenceLength = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of the runtime.", show_default="the job's, or 1")
    ] = None,
    budget_minutes: BudgetMinutes = None,
    as_json: AsJson = False,
) -> None:
    """Measure on this machine what a job's space, or a model, can reach, and write a latency table.

    The same command continues what was stopped.
    """
    from workers.targets.base import TARGETS, TargetConfig

    if target is not None:
        TARGETS.get(target)
    given = {"name": target, "batch": batch, "sequence_length": sequence_length, "threads": threads}
    given = {name: value for name, value in given.items() if value is not None}
    job = None if space is None else _job(space, given, model=model, revision=revision, task=task)
    if job is None:
        if model is None or out is None:
            got = "neither" if model is None else f"--model {model} without --out FILE"
            raise UsageError(f"a profile takes --space JOB, or --model and --out; got {got}")
        model_config = _model_config(model, revision, task)
        target_config = checked(TargetConfig, given)
    from controller import operations
    from controller.cli.progress import ProgressView
    from controller.cli.render import render_profile

    with resumable("no row was measured"), stdout_for_results(), ProgressView(stderr_console()) as view:
        if job is not None:
            summary = operations.run_space_profile(job, view, out=out, minutes=budget_minutes)
        else:
            assert out is not None
            summary = operations.run_profile(model_config, target_config, out, view, minutes=budget_minutes)
    if as_json:
        print_json(summary.to_dict())
    else:
        render_profile(stdout_console(), summary)


@reports_errors
def calibrate_table(
    table: Annotated[Path, typer.Option("--table", metavar="FILE", help="Latency table.", show_default=False)],
    model: Model = None,
    space: Space = None,
    task: Task = None,
    revision: Revision = None,
    batch: Batch = None,
    sequence_length: SequenceLength = None,
    budget_minutes: BudgetMinutes = None,
    as_json: AsJson = False,
) -> None:
    """Measure whole models end to end, fit the table's correction on them, and say how wrong predictions are."""
    given = {"batch": batch, "sequence_length": sequence_length}
    given = {name: value for name, value in given.items() if value is not None}
    job = None if space is None else _job(space, given, model=model, revision=revision, task=task)
    if job is None and model is None:
        raise UsageError("a table is calibrated with --model or --space JOB; got neither")
    model_config = None if job is not None or model is None else _model_config(model, revision, task)
    from controller import operations
    from controller.cli.progress import ProgressView
    from controller.cli.render_calibration import render_calibration

    with resumable("the table is as it was"), stdout_for_results(), ProgressView(stderr_console()) as view:
        summary = operations.run_calibration(
            table,
            view,
            job=job,
            model=model_config,
            batch=batch or 1,
            sequence_length=sequence_length,
            minutes=budget_minutes,
        )
    if as_json:
        print_json(summary.to_dict())
    else:
        render_calibration(stdout_console(), summary)


def _job(path: Path, target: dict[str, Any], *, model: str | None, revision: str | None, task: str | None) -> JobSpec:
    """A job with another model or target where the command line names one."""
    from controller.job_file import load_job
    from workers.model import ModelConfig
    from workers.targets.base import TargetConfig

    job = load_job(path)
    config = checked(TargetConfig, {**job.target.model_dump(), **target})
    known = job.model.model_dump()
    # A commit of the job's model is none of another.
    known |= {} if model is None else {"id": model, "revision": None}
    known |= {name: value for name, value in (("revision", revision), ("task", task)) if value is not None}
    return job.model_copy(update={"target": config, "model": checked(ModelConfig, known)})


def _model_config(model: str, revision: str | None, task: str | None) -> ModelConfig:
    from workers.model import ModelConfig

    return checked(ModelConfig, {"id": model, "revision": revision, "task": task or DEFAULT_TASK})
