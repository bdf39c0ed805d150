"""The short form of a job: one mapping of a model, its data, a target and what is wanted, for use from Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from controller.job import DEFAULT_STORAGE, JobSpec, parse_job
from controller.job_file import anchored
from controller.problems import JobError, describe_errors

if TYPE_CHECKING:
    from controller.results import ExportSummary, Progress, SearchResult

_WHERE = "the configuration"
_LONGEST_NAME = 64


class ShortForm(BaseModel):
    """What `AutoCompressor` takes: the keys that most searches need; a job file says everything."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str = Field(min_length=1)
    """Local folder, or Hugging Face id ("org/name")."""
    data: str | dict[str, Any]
    """File or hub id of the examples, or the section `data` of a job."""
    task: str = "text-classification"
    """Name of a task."""
    target: str | dict[str, Any] = "cpu-onnxruntime"
    """Name of a target, or the section `target` of a job."""
    sequence_length: int | None = Field(default=None, ge=1)
    """Tokens of an example, for text models."""
    iterations: int = Field(default=100, ge=1, le=1_000_000)
    """Trials, 1 to 1,000,000."""
    objectives: tuple[str, ...] = ("quality", "latency_ms")
    """What the front is spanned by: quality and at least one cost."""
    constraints: dict[str, Any] = Field(default_factory=dict)
    """The section `constraints` of a job."""
    keep: tuple[float, ...] | None = None
    """Shares of heads and channels on offer, 0 to 1; None takes the job's default."""
    formats: tuple[str, ...] | None = None
    """Number formats on offer; None takes the target's."""
    name: str | None = None
    """Name of the study; None takes the model's."""
    sampler: str = "frontier"
    """Sampler that proposes policies."""
    seed: int = 0
    """Seed of sampler and splits."""
    storage: str = DEFAULT_STORAGE
    """Database of the study."""
    mlflow: bool = True
    """Whether runs go to MLflow."""

    @field_validator("objectives", "keep", "formats", mode="before")
    @classmethod
    def _lists_will_do(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def job_content(self) -> dict[str, Any]:
        """Return the job that the short form stands for, as a job file would have it."""
        target: dict[str, Any] = {"name": self.target} if isinstance(self.target, str) else dict(self.target)
        if self.sequence_length is not None:
            target["sequence_length"] = self.sequence_length
        space = {"keep": self.keep, "formats": self.formats}
        return {
            "name": self.name or _name_of(self.model),
            "model": {"id": self.model, "task": self.task},
            "data": {"source": self.data} if isinstance(self.data, str) else self.data,
            "space": {key: list(value) for key, value in space.items() if value is not None},
            "target": target,
            "objectives": list(self.objectives),
            "constraints": self.constraints,
            "search": {"sampler": self.sampler, "trials": self.iterations, "seed": self.seed},
            "storage": self.storage,
            "mlflow": {"enabled": self.mlflow},
        }


def _name_of(model: str) -> str:
    """A study's name made of a model's: its last part, without what a name can't have."""
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    return re.sub(r"[^A-Za-z0-9._-]", "-", last).lstrip(".")[:_LONGEST_NAME] or "model"


class AutoCompressor:
    """Searches and exports by one mapping.

    Args:
        config: Keys of `ShortForm`: model and data are required; task, target, iterations, objectives, constraints and
            others have defaults. Relative paths belong to the current folder.

    Attributes:
        job: The whole job that the mapping stands for.
        result: What the search found; None before `run`.

    Raises:
        controller.job.JobError: A key is not known (the message says which was meant), or a value does not fit.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        if not isinstance(config, Mapping):
            raise JobError(_WHERE, [f"must be a mapping of keys to values; got {type(config).__name__}"])
        try:
            short = ShortForm.model_validate(dict(config))
        except ValidationError as error:
            raise JobError(_WHERE, describe_errors(error.errors(include_url=False), ShortForm)) from None
        self.job: JobSpec = anchored(parse_job(short.job_content(), where=_WHERE), Path.cwd())
        self.result: SearchResult | None = None

    def run(self, *, on_progress: Callable[[Progress], None] | None = None) -> SearchResult:
        """Search, or go on where an earlier run of the same mapping was stopped.

        Args:
            on_progress: Called now and then with where the search stands.

        Raises:
            ValueError: Model, data, space, table or study does not fit; the types say which.
            RuntimeError: Most trials failed, or Ray did.
        """
        from controller import operations

        self.result = operations.run_search(self.job, on_progress or (lambda progress: None))
        return self.result

    def export(self, out: str | Path, *, pick: str = "knee") -> ExportSummary:
        """Export a member of the front, verified; see `paretrim.export`.

        Args:
            out: Folder of the artifact.
            pick: What to take, in words.
        """
        from controller import operations

        return operations.run_export(self.job.name, self.job.storage, pick=pick, trial=None, out=Path(out))
