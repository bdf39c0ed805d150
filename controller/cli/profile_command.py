"""The command that measures a latency table."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from controller.cli.errors import reports_errors
from controller.cli.options import AsJson
from controller.cli.text import print_json, stderr_console, stdout_console, stdout_for_results
from controller.problems import JobError, describe_errors

M = TypeVar("M", bound=BaseModel)


@reports_errors
def profile(
    model: Annotated[str, typer.Option("--model", help="Local folder or Hugging Face id.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Latency table to write.", show_default=False)],
    target: Annotated[str, typer.Option("--target", help="Name of the target.")] = "cpu-onnxruntime",
    task: Annotated[str, typer.Option("--task", help="Name of the model's task.")] = "text-classification",
    revision: Annotated[str | None, typer.Option("--revision", help="Commit on the hub.", show_default=False)] = None,
    batch: Annotated[int, typer.Option("--batch", help="Examples in one call.")] = 1,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", help="Tokens of an example; left out for images.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of the runtime.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure the operators of a model on this machine, and write a latency table."""
    from workers.model import ModelConfig
    from workers.targets.base import TARGETS, TargetConfig

    TARGETS.get(target)
    model_config = _checked(ModelConfig, {"id": model, "revision": revision, "task": task})
    workload = {"name": target, "batch": batch, "sequence_length": sequence_length, "threads": threads}
    target_config = _checked(TargetConfig, workload)
    from controller import operations
    from controller.cli.progress import ProgressView
    from controller.cli.render import render_profile

    with stdout_for_results(), ProgressView(stderr_console()) as view:
        summary = operations.run_profile(model_config, target_config, out, view)
    if as_json:
        print_json(summary.to_dict())
    else:
        render_profile(stdout_console(), summary)


def _checked(kind: type[M], values: dict[str, Any]) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise JobError("the command line", describe_errors(error.errors(include_url=False), kind)) from None
