"""The scores of a policy."""

import math
from dataclasses import dataclass
from enum import StrEnum

from evaluators.latency.table.energy import EnergyBasis


class ScoreError(ValueError):
    """A score is NaN or infinite."""


class QualityMeasure(StrEnum):
    """What the quality of a policy is. Whichever it is, larger is better."""

    METRIC = "metric"
    """The task's metric against the labels: accuracy, a correlation, or bits for each token of a text, negated."""
    FIDELITY = "fidelity"
    """How far the outputs are those of the dense model, 0 to 1: see `evaluators.divergence.overlap_by_target`, and for
    embeddings `evaluators.comparison.cosine_agreement`."""

    def name_with(self, metric: str) -> str:
        """Name of the quality of a task that has this metric."""
        return metric if self is QualityMeasure.METRIC else str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well a policy does on a number of examples.

    Attributes:
        metric: Name of what was measured ("accuracy", "fidelity").
        value: The measure; larger is better.
        per_example: The measure of each example, for intervals and paired comparison: in the order of the split; on a
            rung of it in the order in which rungs take examples (see `evaluators.rungs.rung_order`); empty where
            scoring stopped early.
        kl_to_dense: Mean Kullback-Leibler divergence of the dense model's outputs from this policy's, in nats; of
            embeddings the mean cosine distance.
        seconds: Wall time of the evaluation.
        rung: Rung of the split that was scored, from 0; None for the whole split, and where scoring stopped early.
        share: Share of the split's examples that were scored, above 0 to 1.
    """

    metric: str
    value: float
    per_example: tuple[float, ...]
    kl_to_dense: float
    seconds: float
    rung: int | None = None
    share: float = 1.0

    @property
    def stopped_early(self) -> bool:
        """Whether scoring stopped at a bar (see `evaluators.race`), so that the value is an estimate."""
        return self.rung is None and self.share < 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a policy costs on the target, known without running it.

    Attributes:
        latency_ms: Predicted time of one batch of the target's workload.
        size_bytes: Bytes of all parameters as stored in the artifact.
        energy_mj: Energy of one batch of the workload in millijoule; None where it is not known, as in studies of
            earlier releases.
        energy_basis: Whether that is measured or estimated; None where there is none.
        peak_memory_bytes: Most bytes of activations that are held at one time, computed; None where it is not known.
    """

    latency_ms: float
    size_bytes: int
    energy_mj: float | None = None
    energy_basis: EnergyBasis | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Quality and costs of a policy.

    Attributes:
        quality: Quality as the study means it.
        costs: What the policy costs.
        task_metric: The task's metric on the same examples, where quality is something else and the examples are those
            of the holdout; else None.
    """

    quality: Quality
    costs: Costs
    task_metric: Quality | None = None

    def check_finite(self) -> None:
        """Refuse scores that would win or poison a front.

        Raises:
            ScoreError: A score is NaN or infinite; the message names the metric.
        """
        values = {
            self.quality.metric: self.quality.value,
            "kl_to_dense": self.quality.kl_to_dense,
            "latency_ms": self.costs.latency_ms,
            "size_bytes": float(self.costs.size_bytes),
            "energy_mj": self.costs.energy_mj or 0.0,
        }
        for name, value in values.items():
            if not math.isfinite(value):
                raise ScoreError(f"{name} must be finite; got {value}")
