"""The artifact of a policy: written beside its final place, verified there, and moved in whole or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluators.quality import Outputs
from evaluators.scores import Costs
from evaluators.tasks import Example
from search_spaces.policy import Policy
from workers.export.compare import describe_deviation, layer_differences
from workers.export.early_exit.exiting_model import EarlyExit, exiting_forward
from workers.export.early_exit.record import ExitReport
from workers.export.huggingface import export_huggingface
from workers.export.layer_forms import FolderError
from workers.export.measurement import Measurement, VerifyRequest
from workers.export.onnx import ExportError, export_onnx
from workers.export.policy_picture import draw_policy
from workers.export.recount import count_layers
from workers.export.report import ExportReport
from workers.export.verify import WHOLE, verify_in_fresh_process
from workers.protocol import Split, WorkerSpec
from workers.recover import RecoveryReport
from workers.targets import TARGETS
from workers.targets.base import ONNX_FILE, ExportForm
from workers.trial import TrialWorker, workload_of

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
WHOLE_FOLDER = "whole"
"""Beside an artifact with an early exit, the same model without it is written for comparison, and not released."""
SPLITS = (Split.SEARCH, Split.HOLDOUT)
"""Splits that an artifact is scored on."""


class ArtifactError(ExportError):
    """The artifact is not what was searched, or has no place; nothing was released."""


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
        early_exit: Where examples leave the model whose class is clear by then; None for nowhere.
        texts: Further files that go along, name to content.
    """

    spec: WorkerSpec
    study: str
    trial: int
    policy: Policy
    out: Path
    render_card: Callable[[ExportReport], str]
    recovery: RecoveryReport | None = None
    early_exit: EarlyExit | None = None
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
        written = _write_files(worker, request, folder)
        for name, text in request.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        searched = dict(_searched(worker, request))
        asked = _verify_request(worker, request, folder, Path(scratch), written, searched)
        measured = verify_in_fresh_process(asked)
        early_exit = _exit_report(request, searched, measured)
        report = _report(worker, request, written, measured, early_exit)
        report = report.model_copy(update={"files": file_digests(folder)})
        _check(worker, request.policy, report, folder if request.early_exit is None else Path(scratch) / WHOLE_FOLDER)
        (folder / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(request.render_card(report), encoding="utf-8")
        folder.replace(request.out)
    return report


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder by its name within; hexadecimal."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """What was written beside the form that the target takes.

    Attributes:
        folder_loader: What reads the Hugging Face form: "transformers" or "paretrim"; None where there is none.
        folder_obstacle: Why there is none.
    """

    folder_loader: str | None
    folder_obstacle: str | None = None


def _write_files(worker: TrialWorker, request: ExportRequest, folder: Path) -> _Written:
    """Write the target's form and, where it is another, the Hugging Face form beside it."""
    policy = request.policy
    form, model = _form(worker), worker.model_of(policy)
    try:
        summary = export_huggingface(model, policy, folder, processor=worker.processor)
        written = _Written(folder_loader="transformers" if summary.plain else "paretrim")
    except FolderError as error:
        if form is ExportForm.HUGGING_FACE:
            raise
        written = _Written(folder_loader=None, folder_obstacle=str(error))
        _write_settings(worker, policy, folder)
    if form is ExportForm.ONNX:
        _write_onnx(worker, policy, folder, request.early_exit)
    (folder / "policy.svg").write_text(draw_policy(worker.structure, policy), encoding="utf-8")
    return written


def _write_onnx(worker: TrialWorker, policy: Policy, folder: Path, early_exit: EarlyExit | None = None) -> None:
    model, traced = worker.model_of(policy), worker.task.collate(_two_examples(worker))
    export_onnx(model, worker.task, traced, folder / ONNX_FILE, early_exit=early_exit)


def _write_settings(worker: TrialWorker, policy: Policy, folder: Path) -> None:
    """Write what goes along where there is no Hugging Face form."""
    model: Any = worker.model_of(policy)
    model.config.save_pretrained(folder)
    if worker.processor is not None:
        worker.processor.save_pretrained(folder)
    (folder / "policy.json").write_text(policy.to_json() + "\n", encoding="utf-8")


def _form(worker: TrialWorker) -> ExportForm:
    return TARGETS.get(worker.spec.target.name).form


def _two_examples(worker: TrialWorker) -> tuple[Example, ...]:
    """What the exporter traces: an axis of length 1 would become a constant."""
    return (worker.splits.search * 2)[:2]


def _verify_request(
    worker: TrialWorker,
    request: ExportRequest,
    folder: Path,
    scratch: Path,
    written: _Written,
    searched: Mapping[str, Outputs],
) -> VerifyRequest:
    import numpy as np

    arrays = {name: outputs.logits_MC.numpy() for name, outputs in searched.items()}
    arrays |= {f"{name}_scores": outputs.per_example_N.numpy() for name, outputs in searched.items()}
    np.savez(scratch / "logits.npz", allow_pickle=False, **arrays)
    whole = None
    if request.early_exit is not None:
        whole = scratch / WHOLE_FOLDER
        whole.mkdir()
        _write_onnx(worker, request.policy, whole)
    form, dense, dense_policy = _form(worker), scratch / "dense", worker.space.dense_policy()
    dense.mkdir()
    if form is ExportForm.ONNX:
        _write_onnx(worker, dense_policy, dense)
    else:
        export_huggingface(worker.model_of(dense_policy), dense_policy, dense)
    spec = request.spec
    length = workload_of(spec.target, worker.structure).sequence_length
    return VerifyRequest(
        artifact=folder,
        target=spec.target.name,
        task=spec.model.task,
        data=spec.data,
        seed=spec.seed,
        splits=SPLITS,
        batch=spec.target.batch,
        sequence_length=length,
        threads=spec.target.threads,
        measurement=scratch / "measurement.json",
        logits=scratch / "logits.npz",
        dense=dense,
        folder_too=form is ExportForm.ONNX and written.folder_loader is not None,
        whole=whole,
    )


def _searched(worker: TrialWorker, request: ExportRequest) -> Iterator[tuple[str, Outputs]]:
    """What the artifact should answer on each split; with an early exit also what the model without it does."""
    for split in SPLITS:
        outputs, name = worker.outputs(request.policy, split), split.value
        if request.early_exit is not None:
            yield f"{WHOLE}{name}", outputs
            forward = exiting_forward(worker.model_of(request.policy), request.early_exit)
            outputs = worker.evaluator(split).run(forward)
        yield name, outputs


def _exit_report(request: ExportRequest, searched: Mapping[str, Outputs], measured: Measurement) -> ExitReport | None:
    if request.early_exit is None or measured.early_exit is None:
        return None
    whole = {split.value: searched[f"{WHOLE}{split.value}"] for split in SPLITS}
    return ExitReport(
        forecast=request.early_exit.forecast,
        whole_metric={name: float(outputs.per_example_N.double().mean()) for name, outputs in whole.items()},
        measured=measured.early_exit,
    )


def _report(
    worker: TrialWorker,
    request: ExportRequest,
    written: _Written,
    measured: Measurement,
    early_exit: ExitReport | None,
) -> ExportReport:
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
        target=request.spec.target.name,
        form=_form(worker),
        metric=worker.task.metric,
        dense_metric={split.value: worker.evaluator(split).dense_metric for split in SPLITS},
        splits=measured.splits,
        folder=measured.folder,
        folder_loader=written.folder_loader,
        folder_obstacle=written.folder_obstacle,
        classes=measured.classes,
        metric_gap=sum(gaps) / examples,
        latency_predicted_ms=costs.latency_ms,
        latency_low_ms=None if worker.foreign else predicted.low_ms,
        latency_high_ms=None if worker.foreign else predicted.high_ms,
        dense_latency_predicted_ms=dense_costs.latency_ms,
        latency_measured_ms=measured.latency_ms,
        latency_undisturbed_ms=measured.latency_undisturbed_ms,
        latency_p99_ms=measured.latency_p99_ms,
        dense_latency_measured_ms=measured.dense_latency_ms,
        latency_error=None if worker.foreign else measured.latency_undisturbed_ms / costs.latency_ms - 1,
        size_predicted_bytes=costs.size_bytes,
        size_file_bytes=measured.file_bytes,
        dense_size_bytes=dense_costs.size_bytes,
        throughput=measured.throughput,
        weights=measured.weights,
        loaded_bytes=measured.loaded_bytes,
        peak_memory_bytes=measured.peak_memory_bytes,
        runtime=measured.runtime,
        batch=workload.batch,
        sequence_length=workload.sequence_length,
        threads=request.spec.target.threads,
        foreign_table=bool(worker.foreign),
        predicted_for=worker.measured_on if worker.foreign else None,
        metric_tolerance=max(METRIC_TOLERANCE, min(MOST_TOLERANCE, EXAMPLES_TOLERANCE / examples)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recovery=request.recovery,
        early_exit=early_exit,
    )


def _check(worker: TrialWorker, policy: Policy, report: ExportReport, folder: Path) -> None:
    """Refuse an artifact that is not what was searched; the folder has the file whose layers are compared then."""
    wrong = [*_quality_problems(report), *_exit_problems(report), *_file_problems(worker, policy, report)]
    if not wrong:
        return
    if report.form is ExportForm.ONNX:
        inputs = worker.task.collate(worker.splits.search[: report.batch])
        differences = layer_differences(folder / ONNX_FILE, worker.model_of(policy), worker.structure, inputs)
        wrong.append(describe_deviation(differences))
    raise ArtifactError(
        f"the exported model is not what was searched, so nothing was released: {'; '.join(wrong)}; "
        "pick another trial, and report this policy as a defect"
    )


def _quality_problems(report: ExportReport) -> Iterator[str]:
    if not abs(report.metric_gap) <= report.metric_tolerance:
        pairs = ", ".join(f"{s.metric:.4f} for {s.searched_metric:.4f} on {n}" for n, s in report.splits.items())
        yield (
            f"{report.metric} is {report.metric_gap:+.4f} from the searched one, more than "
            f"{report.metric_tolerance:.4f} ({pairs})"
        )
    scored = {f"on the {name} split": split for name, split in report.splits.items()}
    if report.folder is not None:
        scored["of the Hugging Face form"] = report.folder
    for place, split in scored.items():
        most = max(METRIC_TOLERANCE, min(2 * MOST_TOLERANCE, SPLIT_EXAMPLES_TOLERANCE / split.examples))
        if not abs(split.metric - split.searched_metric) <= most:
            yield (
                f"{report.metric} {place} is {split.metric:.4f}, searched {split.searched_metric:.4f}, "
                f"more than {most:.4f} apart"
            )
        if not split.cosine >= COSINE_TOLERANCE:
            yield f"logits {place} have a cosine of {split.cosine:.4f}, below {COSINE_TOLERANCE}"


def _exit_problems(report: ExportReport) -> Iterator[str]:
    """Who leaves early in the artifact, against who left in the search."""
    if report.early_exit is None:
        return
    forecast, share = report.early_exit.forecast, report.early_exit.measured.shares[Split.SEARCH.value]
    most = max(METRIC_TOLERANCE, SPLIT_EXAMPLES_TOLERANCE / forecast.examples)
    if not abs(share - forecast.share) <= most:
        yield (
            f"{share:.4f} of the search split leave early, searched {forecast.share:.4f}, more than {most:.4f} apart"
        )


def _file_problems(worker: TrialWorker, policy: Policy, report: ExportReport) -> Iterator[str]:
    """Quantized layers that the files hold, against those that were searched."""
    searched, found = count_layers(worker.model_of(policy), report.form), dict(report.weights.quantized)
    if searched != found:
        differing = sorted(name for name in searched.keys() | found.keys() if searched.get(name) != found.get(name))
        pairs = ", ".join(f"{name}: {found.get(name, 0)} for {searched.get(name, 0)}" for name in differing[:5])
        yield f"the files hold other quantized layers than were searched ({pairs})"
