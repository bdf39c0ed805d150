"""What `report.json` of an artifact holds: searched beside exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from workers.export.early_exit.record import ExitReport
from workers.export.measurement import ClassReport, SplitMeasurement, Throughput, WeightCount
from workers.recover import RecoveryReport
from workers.targets.base import ExportForm

SCHEMA_VERSION: Literal[1] = 1


class ExportReport(BaseModel):
    """What `report.json` holds: searched beside exported.

    Attributes:
        schema_version: Version of this form.
        study: Name of the study.
        trial: Number of the trial.
        policy_digest: Identity of the policy.
        target: Name of the target.
        form: What the target's runtime reads.
        metric: Name of the metric.
        dense_metric: Metric of the dense model by split.
        splits: Searched and exported metric and logits by split.
        folder: What the Hugging Face form does on the holdout, where it lies beside the target's own; else None.
        folder_loader: What reads that form: "transformers" or "paretrim".
        folder_obstacle: Why there is no such form; None where there is.
        classes: The exported model on the holdout, class by class; None where answers are no classes.
        metric_gap: Exported less searched metric over the examples of all splits.
        latency_predicted_ms: By the latency table.
        latency_low_ms: Lower bound of the prediction's interval, see `Correction.interval`; None where nobody measured
            how far it errs here: without a correction, extrapolated, or by a table of other hardware. Earlier versions
            then wrote the prediction itself.
        latency_high_ms: Upper bound, likewise.
        dense_latency_predicted_ms: Prediction for the dense model.
        latency_measured_ms: Median of the artifact in a process of its own; where it has an early exit, of the model
            without it, whose call takes the same path whatever the example.
        latency_undisturbed_ms: Median of the fastest fifth of its calls in quiet moments: what the table predicts.
            None in reports of earlier versions, which compared the prediction with the median of all.
        latency_p99_ms: 99th percentile.
        dense_latency_measured_ms: Median of the dense model as ONNX, in turn with the artifact.
        latency_error: (undisturbed - predicted) / predicted; None where the prediction is for other hardware.
        size_predicted_bytes: Parameters as stored.
        size_file_bytes: Size of the files that the target's runtime reads.
        dense_size_bytes: Parameters of the dense model.
        throughput: Under concurrent load, of the same file as the latency.
        weights: Counted from the files.
        loaded_bytes: Resident memory that loading the artifact and running it took.
        peak_memory_bytes: Largest resident memory of the process that did.
        runtime: Name and version of the runtime.
        batch: Examples in one call.
        sequence_length: Tokens of an example.
        threads: Threads of the runtime.
        foreign_table: Whether the latency table was measured on other hardware than this.
        predicted_for: That hardware in words, which predicted latencies hold on; None where it is this.
        metric_tolerance: Largest gap of the metric that was allowed, as a fraction.
        created: Time of the export, UTC.
        recovery: What training did to the model, which then stands for the searched one; None without it.
        early_exit: Where examples leave whose class is clear by then, and what that saves; None where none do.
        files: SHA-256 of every other file as it was verified, by name; the card is not among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    study: str
    trial: int
    policy_digest: str
    target: str
    form: ExportForm
    metric: str
    dense_metric: Mapping[str, float]
    splits: Mapping[str, SplitMeasurement]
    folder: SplitMeasurement | None = None
    folder_loader: str | None = None
    folder_obstacle: str | None = None
    classes: ClassReport | None = None
    metric_gap: float
    latency_predicted_ms: float
    latency_low_ms: float | None
    latency_high_ms: float | None
    dense_latency_predicted_ms: float
    latency_measured_ms: float
    latency_undisturbed_ms: float | None = None
    latency_p99_ms: float
    dense_latency_measured_ms: float | None
    latency_error: float | None
    size_predicted_bytes: int
    size_file_bytes: int
    dense_size_bytes: int
    throughput: Throughput
    weights: WeightCount
    loaded_bytes: int
    peak_memory_bytes: int
    runtime: str
    batch: int
    sequence_length: int
    threads: int
    foreign_table: bool
    predicted_for: str | None = None
    metric_tolerance: float
    created: str
    recovery: RecoveryReport | None = None
    early_exit: ExitReport | None = None
    files: Mapping[str, str] = {}
