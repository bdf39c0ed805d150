"""What the verifying process is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from workers.data import DataConfig
from workers.export.early_exit.record import ExitMeasurement
from workers.protocol import Split

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class VerifyRequest(BaseModel):
    """What the verifying process needs.

    Attributes:
        artifact: Folder of the artifact.
        target: Name of the target whose runtime reads it.
        task: Name of the task.
        data: Where the examples come from; absolute paths.
        seed: Seed of the splits.
        splits: Splits that are scored; the last one, which the search has not seen, is looked at class by class.
        batch: Examples in one call.
        sequence_length: Tokens of an example in the timed call.
        threads: Threads of the runtime.
        measurement: File that the measurement is written to.
        logits: File (npz) with the searched logits by split, and the scores of all examples by "<split>_scores"; of the
            model without its early exit, which is what a Hugging Face form holds, by "whole_<split>" likewise.
        dense: Folder of the dense model in the same form, timed in turn with the artifact; None leaves that out.
        folder_too: Whether the Hugging Face form, which lies beside the target's own, is scored too.
        whole: Folder of the same model without its early exit, which the timed call goes through; `dense` is given
            too. None where the artifact has no exit.
    """

    model_config = _CONFIG

    artifact: Path
    target: str
    task: str
    data: DataConfig
    seed: int
    splits: tuple[Split, ...]
    batch: int
    sequence_length: int
    threads: int
    measurement: Path
    logits: Path
    dense: Path | None = None
    folder_too: bool = False
    whole: Path | None = None


class SplitMeasurement(BaseModel):
    """What the artifact does on one split, beside what was searched.

    Attributes:
        examples: Examples scored.
        metric: Metric of the artifact, recomputed from its own outputs.
        searched_metric: Metric of the searched model on the same examples.
        max_logit_difference: Largest absolute difference of a logit.
        mean_logit_difference: Mean absolute difference.
        cosine: Cosine of the logits of all examples, taken as one vector: an example next to the decision boundary has
            logits near zero, whose own cosine says nothing.
    """

    model_config = _CONFIG

    examples: int
    metric: float
    searched_metric: float
    max_logit_difference: float
    mean_logit_difference: float
    cosine: float


class ClassMeasurement(BaseModel):
    """How the artifact does on the examples of one class.

    Attributes:
        name: Name of the class.
        precision: Share of right answers among those that name the class; 0 where none does.
        recall: Share of the class's examples that are answered right; 0 where there are none.
        f1: Harmonic mean of the two.
        support: Examples of the class.
    """

    model_config = _CONFIG

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class ClassReport(BaseModel):
    """Classification of the holdout, class by class.

    Attributes:
        classes: In the order of their indices.
        confusion: Examples by true class (rows) and answer (columns).
    """

    model_config = _CONFIG

    classes: tuple[ClassMeasurement, ...]
    confusion: tuple[tuple[int, ...], ...]


class Throughput(BaseModel):
    """What the artifact serves to several clients at once.

    Attributes:
        clients: Clients, each of which sends a call when its last one is answered; as many as the CPUs have room for.
        examples_per_s: Examples a second over all clients.
        median_ms: Median time that a client waits for a call.
        p99_ms: 99th percentile.
    """

    model_config = _CONFIG

    clients: int
    examples_per_s: float
    median_ms: float
    p99_ms: float


class WeightCount(BaseModel):
    """What the files hold, counted from the files.

    Attributes:
        bytes: Bytes of all tensors.
        quantized: How many quantized layers there are, by form and shape ("int8 1536x384").
        runtime_operators: Operators of an ONNX file that only ONNX Runtime has ("MatMulNBits"); empty for other forms.
    """

    model_config = _CONFIG

    bytes: int
    quantized: Mapping[str, int]
    runtime_operators: tuple[str, ...] = ()


class Measurement(BaseModel):
    """What the verifying process measured.

    Attributes:
        splits: By name of the split.
        folder: The same of the Hugging Face form, on the last split; None where it was not asked for.
        classes: Of the last split; None where answers are no classes.
        latency_ms: Median time of one call of the workload.
        latency_undisturbed_ms: Median of the fastest fifth of calls in quiet moments, as in the latency table.
        latency_p99_ms: 99th percentile.
        latency_spread_ms: Interquartile range.
        dense_latency_ms: Median time of the dense model, timed in turn with the artifact.
        throughput: Under concurrent load.
        weights: Recounted from the files.
        file_bytes: Size of the files that the target's runtime reads.
        loaded_bytes: Resident memory that loading the artifact and running it took.
        peak_memory_bytes: Largest resident memory of the process until then.
        runtime: Name and version of the runtime.
        early_exit: Who leaves early, and what that saves; None where there is no exit.
    """

    model_config = _CONFIG

    splits: Mapping[str, SplitMeasurement]
    folder: SplitMeasurement | None = None
    classes: ClassReport | None = None
    latency_ms: float
    latency_undisturbed_ms: float
    latency_p99_ms: float
    latency_spread_ms: float
    dense_latency_ms: float | None
    throughput: Throughput
    weights: WeightCount
    file_bytes: int
    loaded_bytes: int
    peak_memory_bytes: int
    runtime: str
    early_exit: ExitMeasurement | None = None
