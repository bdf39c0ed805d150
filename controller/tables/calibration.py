"""What `paretrim calibrate-table` found: the correction, and the models that it was fitted on one by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.record import Record
from controller.tables.request import TableRequest
from evaluators.latency.correction import ModelError
from evaluators.latency.table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedModel(Record):
    """A whole model beside its prediction.

    Attributes:
        name: Its policy, for people.
        predicted_ms: Predicted time; by a fit on the other models where it was left out.
        measured_ms: Time end to end, undisturbed.
        error_pct: Absolute error of the prediction, in per cent of the measured time.
        left_out: Whether the prediction did not see the measurement.
    """

    name: str
    predicted_ms: float
    measured_ms: float
    error_pct: float
    left_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSummary(Record):
    """A correction and how wrong it is.

    Attributes:
        table: The file that holds it.
        batch: Examples in one call of the workload that it holds for.
        sequence_length: Tokens of one example.
        scale: Factor on operator times.
        format_scales: Factors on the times of operators with weights by their format; empty where all take `scale`.
        other_scale: Factor on the times of operators without weights; None where it is `scale`.
        attention_scale: Factor on the times of those of them that only attention has; None where it is the others'.
        operator_overhead_ms: Time that every operator takes beside its own.
        pair_overhead_ms: Time that every change between float and integer takes beside its own.
        overhead_ms: Time of a call that no operator explains.
        models: The models, by falling measured time.
        median_error_pct: Median error of models that were left out of the fit.
        max_error_pct: The largest of these errors.
        seconds: Wall time.
    """

    table: Path
    batch: int
    sequence_length: int
    scale: float
    format_scales: Mapping[str, float]
    other_scale: float | None
    attention_scale: float | None
    operator_overhead_ms: float
    pair_overhead_ms: float
    overhead_ms: float
    models: tuple[CalibratedModel, ...]
    median_error_pct: float
    max_error_pct: float
    seconds: float


def calibration_summary(request: TableRequest, table: LatencyTable, *, seconds: float) -> CalibrationSummary:
    """Summarise the correction that was just fitted.

    Args:
        request: What it was fitted for, and the file.
        table: The table that holds it.
        seconds: Wall time that it took.
    """
    workload = request.workload
    fit = table.correction(workload, request.space.structure)
    assert fit is not None
    return CalibrationSummary(
        table=request.out.absolute(),
        batch=workload.batch,
        sequence_length=workload.sequence_length,
        scale=fit.scale,
        format_scales=fit.format_scales,
        other_scale=fit.other_scale,
        attention_scale=fit.attention_scale,
        operator_overhead_ms=fit.operator_overhead_ms,
        pair_overhead_ms=fit.pair_overhead_ms,
        overhead_ms=fit.overhead_ms,
        models=tuple(_model(entry) for entry in fit.report),
        median_error_pct=fit.median_error_pct,
        max_error_pct=fit.max_error_pct,
        seconds=seconds,
    )


def _model(entry: ModelError) -> CalibratedModel:
    return CalibratedModel(
        name=entry.name,
        predicted_ms=entry.predicted_ms,
        measured_ms=entry.measured_ms,
        error_pct=entry.error_pct,
        left_out=entry.left_out,
    )
