"""What is said of an early exit: what the search split promises, and what the artifact does."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class ExitForecast(BaseModel):
    """An exit as it was chosen on the search split, with latencies by the table.

    Attributes:
        block: Module after which examples leave.
        blocks_run: Blocks that an example runs through when it leaves there, embeddings among them.
        blocks: Blocks of the whole model.
        threshold_nats: An example leaves where the entropy of the exit's classes is at most this.
        tolerance: Quality that was allowed to be lost, as a fraction.
        fitted_examples: Calibration examples that the exit's head was fitted to.
        examples: Examples of the search split.
        share: Share of them that leaves, 0 to 1.
        quality: Metric with the exit.
        whole_quality: Metric of the same model without it.
        early_ms: Latency of an example that leaves.
        late_ms: Latency of one that does not.
        expected_ms: Mean over the examples.
        whole_ms: Latency of the model without the exit.
    """

    model_config = _CONFIG

    block: str
    blocks_run: int
    blocks: int
    threshold_nats: float
    tolerance: float
    fitted_examples: int
    examples: int
    share: float
    quality: float
    whole_quality: float
    early_ms: float
    late_ms: float
    expected_ms: float
    whole_ms: float


class ExitMeasurement(BaseModel):
    """What an artifact with an early exit does on real examples, one at a time in a process of its own.

    Attributes:
        shares: Share of examples that leaves early, by split.
        examples: Examples of the last split that were timed, each as long as it is.
        mean_ms: Mean latency over them.
        whole_mean_ms: The same of the model without the exit, in turn with it.
        dense_mean_ms: The same of the dense model.
    """

    model_config = _CONFIG

    shares: Mapping[str, float]
    examples: int
    mean_ms: float
    whole_mean_ms: float
    dense_mean_ms: float


class ExitReport(BaseModel):
    """An early exit: promise and proof.

    Attributes:
        forecast: As chosen on the search split.
        whole_metric: Metric of the model without the exit, by split.
        measured: By the artifact.
    """

    model_config = _CONFIG

    forecast: ExitForecast
    whole_metric: Mapping[str, float]
    measured: ExitMeasurement
