"""What passes between the controller and its workers: small frozen records that pickle."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from evaluators.bar import Bar
from evaluators.scores import QualityMeasure, Scores
from search_spaces.policy import Policy
from search_spaces.space import SpaceConfig
from workers.data import DataConfig
from workers.model import ModelConfig
from workers.targets import TargetConfig


class Split(StrEnum):
    """Disjoint parts of the data."""

    CALIBRATION = "calibration"
    """Compression looks at these examples."""
    SEARCH = "search"
    """Trials are scored on these."""
    HOLDOUT = "holdout"
    """Only the finished front and the artifact are scored on these."""


class FailureReason(StrEnum):
    """Why a trial has no scores."""

    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE_SCORE = "non_finite_score"
    TIMEOUT = "timeout"
    WORKER_DIED = "worker_died"
    DISK_FULL = "disk_full"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """All that a worker needs to score policies of one study.

    Attributes:
        model: Where the model comes from.
        data: Where its data comes from and how it is split.
        space: Declared choices.
        target: Device and workload; its table is a path that the worker can read.
        cache_dir: Folder of variants and of whatever else is made once.
        quality: What the quality of a policy is.
        seed: Seed of splits and of everything random in a worker.
        threads: Threads that torch uses in this worker.
        device: Where torch runs the models of trials ("cpu", "cuda"). Variants are made on the CPU everywhere, so that
            all workers have the same.
    """

    model: ModelConfig
    data: DataConfig
    space: SpaceConfig
    target: TargetConfig
    cache_dir: Path
    quality: QualityMeasure = QualityMeasure.METRIC
    seed: int = 0
    threads: int = 1
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """One policy to score.

    Attributes:
        trial: Number of the trial in its study.
        attempt: Token of this attempt; a report under another token is refused.
        policy: What to score.
        split: On which examples.
        rung: On which rung of the split (see `evaluators.rungs`), from 0, the fewest examples; None for all of it.
        bar: What it must reach: scoring stops once it is known not to; None scores on to the end.
    """

    trial: int
    attempt: str
    policy: Policy
    split: Split = Split.SEARCH
    rung: int | None = None
    bar: Bar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialReport:
    """Scores of one request."""

    trial: int
    attempt: str
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFailure:
    """Why one request has no scores.

    Attributes:
        trial: Number of the trial.
        attempt: Token of the attempt.
        reason: What kind of failure.
        message: What happened, for people; a line or a few.
    """

    trial: int
    attempt: str
    reason: FailureReason
    message: str


class Worker(Protocol):
    """Scores policies in one process, with everything that takes long to load kept warm."""

    def evaluate(self, request: TrialRequest) -> TrialReport | TrialFailure:
        """Score one policy. An exception counts as a failure of the policy, not of the worker."""
