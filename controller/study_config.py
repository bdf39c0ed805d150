"""What a study is told, and the ways in which it ends early."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from controller.differences import differences
from controller.errors import PreflightError, UsageError
from controller.job import Constraints, Objective
from controller.latency_words import MARGIN_PCT
from controller.samplers.context import SamplerContext
from controller.storage.records import StudyRecord, canonical_json
from evaluators.scores import Costs, QualityMeasure
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace

_DIFFERENCES_SHOWN = 12
_ORIGIN = "origin"
_NAMED_FLAGS = re.compile(r"^flags: .*")


class StudyConflictError(UsageError):
    """A study of that name exists, and its job is another one."""


class DenseModelError(PreflightError):
    """The dense model has no score, or one that leaves nothing to lose."""


class TooManyFailuresError(RuntimeError):
    """Most trials fail, so more of them would tell nothing new."""


class StopReason(StrEnum):
    """Why a search has ended."""

    TRIALS = "trials"
    """All trials that were asked for are done."""
    TIMEOUT = "timeout"
    """The time is over."""
    EXHAUSTED = "exhausted"
    """Every policy of the space was seen, or the sampler proposes nothing that is new and cheap enough."""
    INTERRUPTED = "interrupted"
    """It was told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The study that another one began with.

    Attributes:
        study: Its name.
        id: Its identity in the database.
        trials: Trials that were taken over from it: those with smaller numbers than this.
    """

    study: str
    id: str
    trials: int

    @classmethod
    def of(cls, record: StudyRecord) -> "Origin | None":
        """Return the origin of a study; None where it has none."""
        content = json.loads(record.fixed_json).get(_ORIGIN)
        return None if content is None else cls(**content)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """All that a study needs to know; `JobSpec` and the model give it.

    Attributes:
        name: Name of the study, unique in its database.
        space: What may be proposed.
        objectives: What the front is spanned by.
        constraints: Bounds on what may be picked.
        sampler: Name of a registered sampler.
        seed: Seed of the sampler.
        trials: Policies that get a score or a failure, baselines apart; one that is scored on a rung of the examples
            counts its share.
        examples: Examples of the search split; None takes the shares of rungs as they are on a large split.
        racing: Whether scoring a trial stops once it can't enter the front any more.
        timeout_s: Seconds after which no new trial starts; None for no limit.
        evaluation_digest: Digest of all that a quality depends on beside the policy: model, data, method.
        target_digest: Digest of all that costs depend on beside the policy: target, workload, latency table.
        job_digest: Digest of the job's content.
        job: The job as JSON values, passwords masked, kept with the study.
        fixed: The part of the job that can't change once there are trials, as JSON values.
        chance_quality: Quality of guessing; the dense model must have more.
        origin: The study whose trials this one begins with; None where it begins with none.
    """

    name: str
    space: SearchSpace
    objectives: tuple[Objective, ...] = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)
    constraints: Constraints = field(default_factory=Constraints)
    sampler: str = "tpe"
    seed: int = 0
    trials: int = 100
    examples: int | None = None
    racing: bool = True
    timeout_s: float | None = None
    evaluation_digest: str
    target_digest: str = ""
    job_digest: str = ""
    job: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    chance_quality: float = 0.0
    origin: Origin | None = None

    @property
    def fixed_json(self) -> str:
        """Everything that makes older trials useless if it changes, and where they are from, as canonical JSON."""
        content = {
            "job": dict(self.fixed),
            "space": describe_space(self.space),
            "objectives": [str(objective) for objective in self.objectives],
            "evaluation": self.evaluation_digest,
            "target": self.target_digest,
        }
        return canonical_json(content if self.origin is None else {**content, _ORIGIN: asdict(self.origin)})

    @property
    def space_digest(self) -> str:
        """Digest of the units and their choices."""
        return hashlib.sha256(canonical_json(describe_space(self.space)).encode()).hexdigest()[:16]


def sampler_context(config: StudyConfig, cost_of: Callable[[Policy], Costs]) -> SamplerContext:
    """Return what the study's sampler may know."""
    return SamplerContext(
        seed=config.seed,
        space=config.space,
        cost_of=cost_of,
        objectives=config.objectives,
        constraints=config.constraints,
        chance_quality=config.chance_quality,
        may_probe=config.origin is None,
    )


def describe_space(space: SearchSpace) -> dict[str, Any]:
    """Return the units of a space and their choices as JSON values."""
    return {
        "base_format": space.base_format,
        "units": {
            s.unit.name: {"groups": s.unit.groups, "keep": list(s.keeps), "formats": list(s.formats)}
            for s in space.unit_spaces
        },
    }


def check_same_study(record: StudyRecord, config: StudyConfig) -> None:
    """Refuse to continue a study whose trials would not compare with new ones.

    The number of trials, the time limit and the number of workers may change.

    Raises:
        StudyConflictError: Space, objectives, data or whatever else is fixed has changed; the message shows how.
    """
    before, now = (_compared(text) for text in (record.fixed_json, config.fixed_json))
    if before == now:
        return
    lines = _told(before, now)
    more = [f"and {len(lines) - _DIFFERENCES_SHOWN} more"] if len(lines) > _DIFFERENCES_SHOWN else []
    raise StudyConflictError(
        "\n  ".join(
            [
                f"a study can't change what its trials were scored on; study {record.name!r} differs in:",
                *lines[:_DIFFERENCES_SHOWN],
                *more,
                "give the job another name, or continue with what the study has",
            ]
        )
    )


def _told(before: Any, now: Any) -> list[str]:
    """Differences in what the job's user wrote first; those of single units, which mostly follow, are only counted."""
    written = list(differences(before["job"], now["job"], "job"))
    keys = [key for key in sorted(before.keys() | now.keys()) if key not in ("job", "space")]
    told = [line for key in keys for line in differences({key: before.get(key)}, {key: now.get(key)})]
    units = list(differences(before["space"], now["space"], "space"))
    if written and units:
        units = [f"space: {len(units)} choices of single units"]
    return [*written, *told, *units]


def _compared(fixed_json: str) -> Any:
    """What must be the same. Jobs without a word on quality are of a time when it was always the metric.

    What follows from model, data and table is left out, as these have a digest; and where the quality of guessing is
    computed from outputs, its last digits are those of the machine. Where the trials are from changes nothing about
    them. How much of a foreign table's flags is told has changed.
    """
    content = json.loads(fixed_json)
    content.pop(_ORIGIN, None)
    for name in ("chance_quality", "metric_evaluation", MARGIN_PCT, "measured_on"):
        content["job"].pop(name, None)
    content["job"].setdefault("quality", QualityMeasure.METRIC.value)
    if "foreign_table" in content["job"]:
        content["job"]["foreign_table"] = [_NAMED_FLAGS.sub("flags", text) for text in content["job"]["foreign_table"]]
    return content


def too_many_failures(failures: Sequence[tuple[str, str]], finished: int) -> TooManyFailuresError:
    """Describe failures by reason, with one example each.

    Args:
        failures: Reason and message of each failed trial.
        finished: How many trials have finished, failed ones included.
    """
    counts = Counter(reason for reason, _ in failures)
    examples = dict(reversed(failures))
    lines = [f"{reason} ({count}): {examples[reason]}" for reason, count in counts.most_common()]
    return TooManyFailuresError(
        "\n  ".join([f"{len(failures)} of {finished} trials failed, so the search has stopped:", *lines])
    )
