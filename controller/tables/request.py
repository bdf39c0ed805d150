"""What a latency table is asked for, known before anything that measures is imported."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller.errors import PreflightError
from evaluators.latency.shipped import is_of_package
from evaluators.latency.workload import Operator, Workload
from search_spaces.space import SearchSpace
from workers.model import ModelConfig
from workers.targets import TARGETS, TargetConfig

OnStage = Callable[[str, int, int], None]
"""(what is going on, steps done, steps in all)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRequest:
    """What a table has to answer for, and where it goes.

    Attributes:
        model: The model, whose weights are read for the correction.
        target: Runtime and threads.
        space: Where the correction's policies come from.
        workload: What models are fed with.
        operators: What the table must know.
        out: The file; what it holds already is not measured again.
        minutes: Time for all of it, about; None has no limit.
        job_words: Command line that measures what the job file needs which asks for the table; empty without one.
        job_out: The file that this command writes where it names none.
    """

    model: ModelConfig
    target: TargetConfig
    space: SearchSpace
    workload: Workload
    operators: tuple[Operator, ...]
    out: Path
    minutes: float | None = None
    job_words: tuple[str, ...] = ()
    job_out: Path | None = None


def check_available(target: TargetConfig) -> None:
    """Check that something can be timed on a target here.

    Raises:
        PreflightError: Its runtime or device is missing.
    """
    if (reason := TARGETS.get(target.name).available()) is not None:
        raise PreflightError(
            f"target {target.name!r} can't be timed on this machine: {reason}; name another (`paretrim targets` lists "
            "them), or plan with a table from elsewhere: target.table and target.allow_foreign_table"
        )


def profile_command(request: TableRequest, *, foreign: bool = False) -> str:
    """Return the command that measures what a table lacks: for the job file where there is one, else for any space.

    Args:
        request: Job file, or model, target and workload; and the table's file.
        foreign: Whether the table was not measured on this machine. Nothing is added to it then, nor to tables that
            come with the package: the command names a new file in the current folder.
    """
    words, notes = request.job_words, []
    if not words:
        words = _model_words(request)
        notes.append("all formats; in place of --model and --task, --space JOB measures what that job needs")
    out = request.out
    if foreign or is_of_package(out):
        out = Path(f"{out.stem}-measured.json")
        notes.append("a new file, on the machine that is meant; target.table names it then")
    if out != request.job_out:
        words = (*words, "--out", str(out))
    return shlex.join(words) + (f"  # {'; '.join(notes)}" if notes else "")


def _model_words(request: TableRequest) -> tuple[str, ...]:
    model, target = request.model, request.target
    words = ["paretrim", "profile", "--model", model.id, "--task", model.task, "--target", target.name]
    if model.revision is not None:
        words += ["--revision", model.revision]
    if request.space.structure.tokens is None:
        words += ["--sequence-length", str(request.workload.sequence_length)]
    return (*words, "--batch", str(target.batch), "--threads", str(target.threads))
