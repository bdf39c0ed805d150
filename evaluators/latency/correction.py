"""What a sum of operators misses (fusion, cache, the call itself), fitted on a few whole models."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

MIN_MODELS_FOR_OVERHEAD = 4
"""With fewer models, leaving one out says nothing about two coefficients."""

Floats = npt.NDArray[np.float64]


class Correction(BaseModel):
    """measured = scale * predicted + overhead, with the error on models that the fit did not see."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    scale: float = Field(gt=0)
    """Factor on the sum of operator times."""
    overhead_ms: float = Field(ge=0)
    """Time of a call that no operator explains."""
    models: int = Field(ge=2)
    """Whole models that were measured."""
    median_error_pct: float = Field(ge=0)
    """Median absolute error in per cent when each model is predicted from the others."""
    max_error_pct: float = Field(ge=0)
    """The largest of these errors."""

    def apply(self, predicted_ms: float) -> float:
        """Correct a sum of operator times."""
        return self.scale * predicted_ms + self.overhead_ms

    def interval(self, corrected_ms: float) -> tuple[float, float]:
        """Bounds that the left-out models stayed within: measured times whose error is at most `max_error_pct`."""
        error = self.max_error_pct / 100
        return corrected_ms / (1 + error), corrected_ms / max(1 - error, 0.01)


def fit_scale(predicted: Floats, measured: Floats) -> tuple[float, float]:
    """Return (scale, 0) with the least sum of squared relative errors; both arrays are (M,), in ms."""
    ratio = predicted / measured
    return float(ratio.sum() / (ratio @ ratio)), 0.0


def fit_affine(predicted: Floats, measured: Floats) -> tuple[float, float]:
    """Return (scale, overhead) with the least sum of squared relative errors, overhead 0 or more, scale above 0.

    Args:
        predicted: Sums of operator times, (M,), in ms.
        measured: Times of the whole models, (M,), in ms.
    """
    design = np.stack([predicted / measured, 1 / measured], axis=1)
    (scale, overhead), _, rank, _ = np.linalg.lstsq(design, np.ones(len(measured)), rcond=None)
    if rank < 2 or overhead < 0 or scale <= 0:
        return fit_scale(predicted, measured)
    return float(scale), float(overhead)


def leave_one_out(predicted: Floats, measured: Floats, *, affine: bool) -> Floats:
    """Return the absolute error of every model, (M,), in per cent of its measured time, when fitted on the others."""
    fit = fit_affine if affine else fit_scale
    errors = np.empty(len(measured))
    for index in range(len(measured)):
        scale, overhead = fit(np.delete(predicted, index), np.delete(measured, index))
        errors[index] = 100 * abs(scale * predicted[index] + overhead - measured[index]) / measured[index]
    return errors


def fit_correction(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> Correction:
    """Fit measured = scale * predicted + overhead on a few whole models.

    The overhead is kept only from `MIN_MODELS_FOR_OVERHEAD` models on, and only where it predicts left-out models
    better than the scale alone.

    Args:
        predicted_ms: Sums of operator times, above 0.
        measured_ms: Measured times of the same models, above 0.

    Returns:
        The correction with its leave-one-out error.

    Raises:
        ValueError: Fewer than two models, lists of different lengths, or a time that is not above 0.
    """
    predicted, measured = np.asarray(predicted_ms, dtype=np.float64), np.asarray(measured_ms, dtype=np.float64)
    if len(predicted) < 2 or len(predicted) != len(measured):
        raise ValueError(
            "a correction is fitted on two or more models, each predicted and measured; "
            f"got {len(predicted)} predictions and {len(measured)} measurements"
        )
    times = np.concatenate([predicted, measured])
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise ValueError(f"times are finite and above 0 ms; got predicted={predicted_ms}, measured={measured_ms}")
    errors, (scale, overhead) = leave_one_out(predicted, measured, affine=False), fit_scale(predicted, measured)
    if len(measured) >= MIN_MODELS_FOR_OVERHEAD:
        affine_errors = leave_one_out(predicted, measured, affine=True)
        if float(affine_errors @ affine_errors) < float(errors @ errors):
            errors, (scale, overhead) = affine_errors, fit_affine(predicted, measured)
    return Correction(
        scale=scale,
        overhead_ms=overhead,
        models=len(measured),
        median_error_pct=float(np.median(errors)),
        max_error_pct=float(errors.max()),
    )
