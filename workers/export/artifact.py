"""The artifact of a policy: written beside its final place, verified there, and moved in whole or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluators.scores import Costs
from evaluators.tasks import Example
from search_spaces.policy import Policy
from workers.export.onnx import ExportError, export_onnx
from workers.export.verify import Measurement, SplitMeasurement, VerifyRequest, verify_in_fresh_process
from workers.protocol import Split, WorkerSpec
from workers.recover import RecoveryReport
from workers.trial import TrialWorker, workload_of

SCHEMA_VERSION = 1
METRIC_TOLERANCE = 0.003
"""Largest gap between the searched and the exported metric, as a fraction."""
EXAMPLES_TOLERANCE = 2
"""On few examples this many may flip, which can be more than the tolerance above: int8 rounds what lies on an edge one
way in torch and the other in the runtime, and an example at the decision boundary follows."""
MOST_TOLERANCE = 0.02
"""However few the examples, a larger gap is never let pass."""
SPLIT_EXAMPLES_TOLERANCE = 3
"""Examples that may flip within one split, so that opposite gaps of two splits do not make up for each other."""
COSINE_TOLERANCE = 0.995
"""Smallest cosine between searched and exported logits."""
_SPLITS = (Split.SEARCH, Split.HOLDOUT)


class ArtifactError(ExportError):
    """The artifact is not what was searched, or has no place; nothing was released."""


class ExportReport(BaseModel):
    """What `report.json` holds: searched beside exported.

    Attributes:
        schema_version: Version of this form.
        study: Name of the study.
        trial: Number of the trial.
        policy_digest: Identity of the policy.
        metric: Name of the metric.
        dense_metric: Metric of the dense model by split.
        splits: Searched and exported metric and logits by split.
        metric_gap: Exported less searched metric over the examples of all splits.
        latency_predicted_ms: By the latency table.
        latency_low_ms: Lower bound by the correction's error.
        latency_high_ms: Upper bound.
        dense_latency_predicted_ms: Prediction for the dense model.
        latency_measured_ms: Median of the artifact in a process of its own.
        latency_p99_ms: 99th percentile.
        dense_latency_measured_ms: Median of the dense model as ONNX, in turn with the artifact.
        latency_error: (measured - predicted) / predicted.
        size_predicted_bytes: Parameters as stored.
        size_file_bytes: Size of model.onnx.
        dense_size_bytes: Parameters of the dense model.
        peak_memory_bytes: Largest resident memory of the verifying process.
        runtime: Name and version of the runtime.
        batch: Examples in one call.
        sequence_length: Tokens of an example.
        threads: Threads of the runtime.
        foreign_table: Whether the latency table was measured on other hardware than this.
        metric_tolerance: Largest gap of the metric that was allowed, as a fraction.
        created: Time of the export, UTC.
        recovery: What training did to the model, which then stands for the searched one; None without it.
        files: SHA-256 of every other file as it was verified, by name; the card is not among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    study: str
    trial: int
    policy_digest: str
    metric: str
    dense_metric: Mapping[str, float]
    splits: Mapping[str, SplitMeasurement]
    metric_gap: float
    latency_predicted_ms: float
    latency_low_ms: float
    latency_high_ms: float
    dense_latency_predicted_ms: float
    latency_measured_ms: float
    latency_p99_ms: float
    dense_latency_measured_ms: float | None
    latency_error: float
    size_predicted_bytes: int
    size_file_bytes: int
    dense_size_bytes: int
    peak_memory_bytes: int
    runtime: str
    batch: int
    sequence_length: int
    threads: int
    foreign_table: bool
    metric_tolerance: float
    created: str
    recovery: RecoveryReport | None = None
    files: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What to export.

    Attributes:
        spec: Settings of the study's workers.
        study: Name of the study.
        trial: Number of the trial.
        policy: The policy.
        out: Folder of the artifact; it must not exist, or be empty.
        render_card: Writes the model card from the report.
        recovery: What training did to the model that the worker has adopted for the policy; None without it.
        texts: Further files that go along, name to content.
    """

    spec: WorkerSpec
    study: str
    trial: int
    policy: Policy
    out: Path
    render_card: Callable[[ExportReport], str]
    recovery: RecoveryReport | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


def check_place(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ArtifactError: It is a file or is not empty.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ArtifactError(f"an artifact goes into a new or empty folder; {str(out)!r} holds something; name another")


def export_artifact(worker: TrialWorker, request: ExportRequest) -> ExportReport:
    """Export a policy, verify it in a fresh process, and release it.

    Raises:
        ArtifactError: The exported model differs from the searched one beyond tolerance, or the place is taken.
        ExportError: The model has no ONNX form.
        VerifyError: The artifact does not load or run.
    """
    check_place(request.out)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=request.out.parent, prefix=f".{request.out.name}-") as made,
        tempfile.TemporaryDirectory(prefix="paretrim-verify-") as scratch,
    ):
        folder = Path(made) / "artifact"
        folder.mkdir()
        _write_files(worker, request.policy, folder)
        for name, text in request.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        measured = verify_in_fresh_process(_verify_request(worker, request, folder, Path(scratch)))
        report = _report(worker, request, measured).model_copy(update={"files": file_digests(folder)})
        _check(report)
        (folder / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(request.render_card(report), encoding="utf-8")
        folder.replace(request.out)
    return report


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder by its name within; hexadecimal."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_files(worker: TrialWorker, policy: Policy, folder: Path) -> None:
    model = worker.model_of(policy)
    export_onnx(model, worker.task, worker.task.collate(_two_examples(worker)), folder / "model.onnx")
    config = model.config
    config.save_pretrained(folder)  # type: ignore[operator, union-attr]
    if worker.processor is not None:
        worker.processor.save_pretrained(folder)
    (folder / "policy.json").write_text(policy.to_json() + "\n", encoding="utf-8")


def _two_examples(worker: TrialWorker) -> tuple[Example, ...]:
    """What the exporter traces: an axis of length 1 would become a constant."""
    return (worker.splits.search * 2)[:2]


def _verify_request(worker: TrialWorker, request: ExportRequest, folder: Path, scratch: Path) -> VerifyRequest:
    import numpy as np

    searched = {}
    for split in _SPLITS:
        outputs = worker.outputs(request.policy, split)
        searched[split.value] = outputs.logits_MC.numpy()
        searched[f"{split.value}_scores"] = outputs.per_example_N.numpy()
    np.savez(scratch / "logits.npz", allow_pickle=False, **searched)
    dense = scratch / "dense.onnx"
    model = worker.model_of(worker.space.dense_policy())
    export_onnx(model, worker.task, worker.task.collate(_two_examples(worker)), dense)
    spec = request.spec
    length = workload_of(spec.target, worker.structure).sequence_length
    return VerifyRequest(
        artifact=folder,
        task=spec.model.task,
        data=spec.data,
        seed=spec.seed,
        splits=_SPLITS,
        batch=spec.target.batch,
        sequence_length=length,
        threads=spec.target.threads,
        measurement=scratch / "measurement.json",
        logits=scratch / "logits.npz",
        dense=dense,
    )


def _report(worker: TrialWorker, request: ExportRequest, measured: Measurement) -> ExportReport:
    dense = worker.space.dense_policy()
    costs: Costs = worker.costs.costs(request.policy)
    dense_costs = worker.costs.costs(dense)
    predicted = worker.costs.predictor.predict(worker.structure, request.policy)
    workload = workload_of(request.spec.target, worker.structure)
    examples = sum(split.examples for split in measured.splits.values())
    gaps = (split.examples * (split.metric - split.searched_metric) for split in measured.splits.values())
    return ExportReport(
        study=request.study,
        trial=request.trial,
        policy_digest=request.policy.digest,
        metric=worker.task.metric,
        dense_metric={split.value: worker.evaluator(split).dense_metric for split in _SPLITS},
        splits=measured.splits,
        metric_gap=sum(gaps) / examples,
        latency_predicted_ms=costs.latency_ms,
        latency_low_ms=predicted.low_ms,
        latency_high_ms=predicted.high_ms,
        dense_latency_predicted_ms=dense_costs.latency_ms,
        latency_measured_ms=measured.latency_ms,
        latency_p99_ms=measured.latency_p99_ms,
        dense_latency_measured_ms=measured.dense_latency_ms,
        latency_error=measured.latency_ms / costs.latency_ms - 1,
        size_predicted_bytes=costs.size_bytes,
        size_file_bytes=measured.file_bytes,
        dense_size_bytes=dense_costs.size_bytes,
        peak_memory_bytes=measured.peak_memory_bytes,
        runtime=measured.runtime,
        batch=workload.batch,
        sequence_length=workload.sequence_length,
        threads=request.spec.target.threads,
        foreign_table=bool(worker.foreign),
        metric_tolerance=max(METRIC_TOLERANCE, min(MOST_TOLERANCE, EXAMPLES_TOLERANCE / examples)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recovery=request.recovery,
    )


def _check(report: ExportReport) -> None:
    wrong = []
    if not abs(report.metric_gap) <= report.metric_tolerance:
        pairs = ", ".join(f"{s.metric:.4f} for {s.searched_metric:.4f} on {n}" for n, s in report.splits.items())
        wrong.append(
            f"{report.metric} is {report.metric_gap:+.4f} from the searched one, more than "
            f"{report.metric_tolerance:.4f} ({pairs})"
        )
    for name, split in report.splits.items():
        most = max(METRIC_TOLERANCE, min(2 * MOST_TOLERANCE, SPLIT_EXAMPLES_TOLERANCE / split.examples))
        if not abs(split.metric - split.searched_metric) <= most:
            wrong.append(
                f"{report.metric} on the {name} split is {split.metric:.4f}, searched {split.searched_metric:.4f}, "
                f"more than {most:.4f} apart"
            )
        if not split.cosine >= COSINE_TOLERANCE:
            wrong.append(f"logits on the {name} split have a cosine of {split.cosine:.4f}, below {COSINE_TOLERANCE}")
    if wrong:
        raise ArtifactError(
            f"the exported model is not what was searched, so nothing was released: {'; '.join(wrong)}; "
            "pick another trial, and report this policy as a defect"
        )
