"""The job: everything that a search is told, checked as a whole before anything heavy is imported."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from controller.job_origin import JobOrigin
from controller.problems import JobError as JobError
from controller.problems import Location, MisplacedError, describe_errors, mask_passwords, show, show_name, suggest
from controller.retargeting.target_change import TargetChange
from controller.sampler_names import BUILT_IN, sampler_names
from evaluators.scores import QualityMeasure
from search_spaces.space import SpaceConfig
from workers.data import DataConfig
from workers.model import ModelConfig
from workers.recovery.config import RecoveryConfig
from workers.targets.base import TARGETS, TargetConfig

SCHEMA_VERSION: Literal[1] = 1
SCHEMA_ID = f"urn:paretrim:job:{SCHEMA_VERSION}"
DEFAULT_STORAGE = "sqlite:///.paretrim/paretrim.db"
DEFAULT_TRACKING = "sqlite:///.paretrim/mlflow.db"
NAME_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"

_CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
# Where results are kept, how many run at once, and for what else the result serves do not change what is found; more
# trials continue a study.
_NOT_CONTENT = {"storage", "mlflow", "also", "recovery"}
_FREE_ON_RESUME = {"trials", "timeout_minutes", "parallel", "cpus_per_worker", "gpus_per_worker", "racing"}


class Objective(StrEnum):
    """What a front is spanned by."""

    QUALITY = "quality"
    """What the job calls quality, to be large."""
    LATENCY_MS = "latency_ms"
    """Time of one batch on the target, to be small."""
    SIZE_BYTES = "size_bytes"
    """Bytes of all parameters as stored, to be small."""
    ENERGY_MJ = "energy_mj"
    """Energy of one batch in millijoule, to be small: measured where the table says so, else estimated."""
    PEAK_MEMORY_BYTES = "peak_memory_bytes"
    """Most bytes of activations that are held at one time, computed, to be small."""


class Constraints(BaseModel):
    """Bounds that a policy must meet to be picked. A bound that no policy can meet is found before any trial."""

    model_config = _CONFIG

    max_quality_drop: float | None = Field(default=None, ge=0, le=1)
    """Largest loss of quality against the dense model, as a fraction of 1 (0.01 is one point of accuracy, or a
    hundredth of the outputs' overlap with the dense model's), 0 to 1."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Largest latency of one batch in milliseconds, above 0."""
    max_size_bytes: int | None = Field(default=None, gt=0)
    """Largest size in bytes, above 0."""
    max_energy_mj: float | None = Field(default=None, gt=0)
    """Largest energy of one batch in millijoule, above 0."""
    max_peak_memory_bytes: int | None = Field(default=None, gt=0)
    """Largest peak memory of activations in bytes, above 0."""


class SearchConfig(BaseModel):
    """How the space is searched."""

    model_config = _CONFIG

    sampler: str = Field(default="frontier", json_schema_extra={"enum": list(BUILT_IN)})
    """Sampler that proposes policies: frontier (the default), evolution, gp, nsga2, nsga3, random, reinforce, tpe, or a
    plug-in's."""
    trials: int = Field(default=100, ge=1, le=1_000_000)
    """Trials in all, baselines apart, 1 to 1,000,000; a larger number continues a finished study."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the sampler and of the splits, 0 to 4,294,967,295."""
    timeout_minutes: float | None = Field(default=None, gt=0)
    """Minutes after which no new trial starts, above 0; without it only the number of trials counts."""
    parallel: int = Field(default=1, ge=1, le=1024)
    """Workers at the same time, 1 to 1,024."""
    cpus_per_worker: float = Field(default=1.0, gt=0, le=1024)
    """CPU cores that each worker reserves, above 0; fractions share a core."""
    gpus_per_worker: float = Field(default=0.0, ge=0, le=64)
    """GPUs that each worker reserves and runs models on, 0 to 64; fractions share one; 0 runs them on the CPU."""
    racing: bool = True
    """Whether scoring a trial stops once it can't enter the front any more; on classification a front loses nothing by
    that but in the 5 % of cases that the first few examples may mislead."""

    @field_validator("sampler")
    @classmethod
    def _sampler_is_known(cls, name: str) -> str:
        names = sampler_names()
        if name not in names:
            raise ValueError(f"must be a sampler; got {show(name)}; {suggest(name, names)}")
        return name


class MlflowRuns(StrEnum):
    """Which policies get a run of their own in MLflow, beside the study's."""

    FRONT = "front"
    """Front members and baselines."""
    ALL = "all"
    """All trials but probes."""


class MlflowConfig(BaseModel):
    """The MLflow store that runs go to."""

    model_config = _CONFIG

    enabled: bool = True
    """Whether runs go to MLflow at all; the database keeps everything either way."""
    tracking_uri: str = Field(default=DEFAULT_TRACKING, min_length=1, repr=False)
    """Address of the MLflow server, or a SQLite file; by default beside the database, in the current folder."""
    experiment: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9 ._-]{0,127}$")
    """Name of the experiment: letters, digits, spaces, dots, dashes, underscores; by default the job's name."""
    runs: MlflowRuns = MlflowRuns.FRONT
    """Which policies get a run of their own: `front`, which is front members and baselines, or `all` trials."""


class RecheckConfig(BaseModel):
    """How the finished front is scored again on the holdout, beside the baselines."""

    model_config = _CONFIG

    members: int | None = Field(default=None, ge=0)
    """Front members that are scored again, 0 or more, spread over the front; without it all are."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Confidence level of the intervals, between 0 and 1."""
    resamples: int = Field(default=1000, ge=100, le=1_000_000)
    """Bootstrap resamples behind each interval, 100 to 1,000,000."""


class JobSpec(BaseModel):
    """A search: which model, which data, which choices, for which target, and what counts as good.

    Relative paths in a job file belong to the folder that the file lies in; the default database and MLflow store
    belong to the current folder, where `paretrim front` looks for them.
    """

    model_config = _CONFIG

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of this form of job, 1."""
    name: str = Field(pattern=NAME_PATTERN)
    """Name of the study: 1 to 64 letters, digits, dots, dashes and underscores, not starting with a dot."""
    model: ModelConfig
    """The trained model."""
    data: DataConfig
    """Examples for compression and scoring."""
    space: SpaceConfig = SpaceConfig()
    """Choices of every unit."""
    target: TargetConfig = TargetConfig()
    """Device, runtime and workload."""
    also: tuple[TargetChange, ...] = ()
    """Further targets, each of which gets a front of its own from the same scores once the search is done."""
    objectives: tuple[Objective, ...] = (Objective.QUALITY, Objective.LATENCY_MS)
    """What the front is spanned by: quality and at least one of latency_ms, size_bytes, energy_mj and
    peak_memory_bytes."""
    quality: QualityMeasure = QualityMeasure.METRIC
    """What quality is. metric: the task's, accuracy or bits per token; take it where examples are many, or where
    a compressed model may be better than the dense one. fidelity: how far the outputs overlap with the dense model's,
    0 to 1 (1 less their total variation distance); take it where examples are few, as it rewards no luck, or where the
    model is to answer as before. The task's metric on the holdout is reported beside it."""
    constraints: Constraints = Constraints()
    """Bounds on what may be picked."""
    search: SearchConfig = SearchConfig()
    """Sampler, number of trials and workers."""
    storage: str = Field(default=DEFAULT_STORAGE, pattern=r"^[A-Za-z0-9_+]+://", repr=False)
    """SQLAlchemy URL of the database (sqlite:///file.db, postgresql+psycopg://host/name)."""
    mlflow: MlflowConfig = MlflowConfig()
    """Where runs are shown."""
    recheck: RecheckConfig = RecheckConfig()
    """Scoring of the front on examples that the search has not seen."""
    recovery: RecoveryConfig = RecoveryConfig()
    """Training of models that were found, after the search and for exports."""

    _origin: JobOrigin = PrivateAttr(default=JobOrigin())

    @field_validator("objectives")
    @classmethod
    def _objectives_trade_off(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        names = [str(objective) for objective in objectives]
        if len(set(names)) != len(names):
            raise ValueError(f"must name each objective once; got {names}")
        if Objective.QUALITY not in objectives or len(objectives) < 2:
            costs = ", ".join(objective for objective in Objective if objective is not Objective.QUALITY)
            raise ValueError(f"must hold quality and at least one of {costs}; got {names}")
        return objectives

    @field_validator("target")
    @classmethod
    def _target_is_known(cls, target: TargetConfig) -> TargetConfig:
        if target.name not in TARGETS:
            raise ValueError(f"name must be a target; got {show(target.name)}; {suggest(target.name, TARGETS)}")
        return target

    @model_validator(mode="after")
    def _formats_have_kernels(self) -> Self:
        on_target = TARGETS.get(self.target.name).formats
        places: dict[Location, tuple[str, ...] | None] = {("space", "formats"): self.space.formats}
        places |= {("space", "override", i, "formats"): o.formats for i, o in enumerate(self.space.override)}
        for place, declared in places.items():
            for index, name in enumerate(declared or ()):
                if name not in on_target:
                    raise MisplacedError(
                        (*place, index),
                        f"must have a kernel on {self.target.name}; got {name!r}; choose from {', '.join(on_target)}",
                    )
        return self

    @property
    def origin(self) -> JobOrigin:
        """The file that the job was read from, where there is one."""
        return self._origin

    def of(self, origin: JobOrigin) -> Self:
        """Return the job as one of this origin."""
        job = self.model_copy()
        job._origin = origin
        return job

    @property
    def digest(self) -> str:
        """Identity of what is searched: 16 hexadecimal digits over all but where results are kept."""
        content = json.dumps(self._content(_NOT_CONTENT), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def fixed_content(self) -> dict[str, Any]:
        """Return what a study can't change once it has trials; comparing two of these says why a resume is refused."""
        content = self._content({*_NOT_CONTENT, "recheck"})
        content["search"] = {key: value for key, value in content["search"].items() if key not in _FREE_ON_RESUME}
        return content

    def _content(self, exclude: set[str]) -> dict[str, Any]:
        """JSON values; a job without what earlier releases did not know is the one that it was then."""
        content = self.model_dump(mode="json", exclude=exclude)
        for name in ("max_energy_mj", "max_peak_memory_bytes"):
            if content["constraints"][name] is None:
                del content["constraints"][name]
        if content["data"]["columns"]["pair"] is None:
            del content["data"]["columns"]["pair"]
        return content

    def public_dict(self) -> dict[str, Any]:
        """Return the whole job as JSON values with passwords in URLs masked, for logs, runs and reports."""
        content = self.model_dump(mode="json")
        content["storage"] = mask_passwords(self.storage)
        content["mlflow"]["tracking_uri"] = mask_passwords(self.mlflow.tracking_uri)
        return content


def parse_job(
    content: object, *, where: str = "the job", positions: Mapping[Location, tuple[int, int]] | None = None
) -> JobSpec:
    """Check a job as a whole.

    Args:
        content: Nested dictionaries, lists, text, numbers and booleans, as read from a file. Types are strict: text
            is no number and no boolean.
        where: Name of the source, for messages.
        positions: Line and column of the entries, for messages.

    Raises:
        JobError: Lists all problems.
    """
    if not isinstance(content, Mapping):
        raise JobError(where, [f"a job is a mapping of keys to values; got {type(content).__name__}; start with name:"])
    misfits = [
        f"{show_name('.'.join(map(str, location)))}: {problem}"
        for location, value in _leaves(content, ())
        if (problem := _misfit(value))
    ]
    if misfits:
        raise JobError(where, misfits)
    try:
        # In JSON mode strict types still let lists be tuples and text be paths and enums.
        return JobSpec.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problems = describe_errors(error.errors(include_url=False), JobSpec, positions)
        raise JobError(where, problems) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise JobError(where, [f"a job holds plain values only; {error}"]) from error


def _misfit(value: object) -> str:
    """Say why no key and no field could ever take the value; empty where one might."""
    if isinstance(value, str) and any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        return f"must hold no control characters; got {show(value)}; remove them"
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"must be a number of at most 64 bits; got {show(value)}; write a smaller one"
    return ""


def _leaves(content: object, location: Location) -> Iterator[tuple[Location, object]]:
    """Yield every key and every plain value in the content."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield (*location, str(key)), key
            yield from _leaves(value, (*location, str(key)))
    elif isinstance(content, (list, tuple)):
        for index, value in enumerate(content):
            yield from _leaves(value, (*location, index))
    else:
        yield location, content


def check_study_name(name: str) -> str:
    """Return the name of a study if it is one.

    Raises:
        JobError: The name has characters that a study's name can't have.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name.endswith("\n"):
        rule = "1 to 64 letters, digits, dots, dashes and underscores, not starting with a dot"
        raise JobError("the study's name", [f"must have {rule}; got {show(name)}"])
    return name


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of job files, for editors."""
    body = JobSpec.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, "title": "Paretrim job"}
    return {**head, **{key: value for key, value in body.items() if key not in head}}
