"""What a sum of operators misses (fusion, cache, dispatch, the call itself), as a few coefficients with their error."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from evaluators.latency.workload import Operator, OperatorKind

PRODUCTS = frozenset({OperatorKind.LINEAR, OperatorKind.CONVOLUTION, OperatorKind.DEPTHWISE})
"""Operators that multiply by weights; all others mostly move data."""
ATTENTION = frozenset(
    {OperatorKind.ATTENTION_CORE, OperatorKind.HEAD_NORM, OperatorKind.ROTARY, OperatorKind.POSITIONS}
)
"""Operators without weights that only attention has."""
PAIRS = frozenset({OperatorKind.QUANTIZE, OperatorKind.STATIC_QUANTIZE, OperatorKind.DEQUANTIZE})
"""Operators that runtimes fuse with the product behind or before them."""
CONFIDENCE = 0.9
"""Share of measured times that an interval is made for."""
TIMING_ERROR = 0.03
"""How far apart, relative to it, two timings of a model in different hours may be; those that a profile calls the same
are within this."""
_WIDEST = 100.0
"""Logarithm beyond which an interval says nothing anyway."""


class _Stored(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelError(_Stored):
    """A whole model that was measured, beside what the correction says of it."""

    name: str
    """The model's policy, for people."""
    predicted_ms: float = Field(gt=0)
    """Prediction of the correction; fitted on the other models where this one was left out."""
    measured_ms: float = Field(gt=0)
    """Median of its undisturbed runs."""
    left_out: bool
    """Whether the prediction did not see the measurement. The fastest and the slowest of many models are always seen:
    a correction holds between them."""

    @property
    def error_pct(self) -> float:
        """Absolute error of the prediction in per cent of the measured time."""
        return 100 * abs(self.predicted_ms / self.measured_ms - 1)


class Correction(_Stored):
    """Turns operator times into those inside of a whole model, with the error on models that the fit did not see.

    An operator takes `scale` times its measured time (what `format_scales` says of its weights' format where that says
    something, `other_scale` where it multiplies by no weights, `attention_scale` where only attention has it), and
    `operator_overhead_ms`; one that is fused with a product `pair_overhead_ms` more; a call `overhead_ms`.
    """

    scale: float = Field(gt=0)
    """Factor on operator times."""
    format_scales: Mapping[str, Annotated[float, Field(gt=0)]] = {}
    """Factors on the times of operators with weights, by their format; those of other formats take `scale`."""
    other_scale: float | None = Field(default=None, gt=0)
    """Factor on the times of operators without weights; None takes `scale`."""
    attention_scale: float | None = Field(default=None, gt=0)
    """Factor on the times of those of them that only attention has; None takes `other_scale`."""
    operator_overhead_ms: float = Field(default=0.0, ge=0)
    """Time that every operator takes beside its own."""
    pair_overhead_ms: float = Field(default=0.0, ge=0)
    """Time that every change between float and integer takes beside its own."""
    overhead_ms: float = Field(ge=0)
    """Time of a call that no operator explains."""
    models: int = Field(ge=2)
    """Whole models that were measured."""
    median_error_pct: float = Field(ge=0)
    """Median absolute error in per cent when a model is predicted from the others."""
    max_error_pct: float = Field(ge=0)
    """The largest of these errors."""
    report: tuple[ModelError, ...] = Field(default=(), strict=False)
    """The models one by one, by falling measured time."""

    def operator_ms(self, operator: Operator, raw_ms: float) -> float:
        """Return the time of one operator inside a whole model.

        Args:
            operator: The operator.
            raw_ms: Its time by the table, above 0.
        """
        pair_ms = self.pair_overhead_ms if operator.kind in PAIRS else 0.0
        return self._scale_of(operator) * raw_ms + self.operator_overhead_ms + pair_ms

    @property
    def coefficients(self) -> int:
        """How many coefficients were fitted; one that was held at its bound of 0 is none."""
        overheads = (self.operator_overhead_ms, self.pair_overhead_ms, self.overhead_ms)
        further = (self.other_scale is not None, self.attention_scale is not None, *(ms > 0 for ms in overheads))
        return max(1, len(self.format_scales)) + sum(further)

    @property
    def margin_pct(self) -> float:
        """Per cent within which `CONFIDENCE` of the measured times of further models are expected, above 0.

        A prediction interval of two parts. The first is Student's quantile times the root mean square of the errors of
        models left out, as logarithms, with as many degrees of freedom as there are models beyond coefficients. The
        second is `TIMING_ERROR`: the machine of another hour is faster or slower for all models alike, which no error
        of the fit can tell, so it is added in full. A correction without its models takes its largest error for the
        root mean square, which is never more.

        Reference:
            Allen (1974), The relationship between variable selection and data augmentation and a method for prediction
            (errors of prediction by leaving one out). Butler and Rothman (1980), Predictive intervals based on reuse of
            the sample.
        """
        from scipy.special import stdtrit

        free = max(1, self.models - self.coefficients)
        quantile = float(stdtrit(free, (1 + CONFIDENCE) / 2))
        return 100 * math.expm1(min(quantile * self._error() + math.log1p(TIMING_ERROR), _WIDEST))

    def interval(self, corrected_ms: float) -> tuple[float, float]:
        """Bounds between which `CONFIDENCE` of measured times with such a prediction are expected; see `margin_pct`.

        Args:
            corrected_ms: The prediction, above 0.

        Returns:
            The prediction over and times the same factor, in ms.
        """
        factor = 1 + self.margin_pct / 100
        return corrected_ms / factor, corrected_ms * factor

    def _error(self) -> float:
        """Root mean square of the logarithms of predicted over measured, of models left out."""
        errors = [math.log(model.predicted_ms / model.measured_ms) for model in self.report if model.left_out]
        if not errors:
            return math.log1p(self.max_error_pct / 100)
        return math.sqrt(math.fsum(error**2 for error in errors) / len(errors))

    def _scale_of(self, operator: Operator) -> float:
        if operator.kind in PRODUCTS:
            return self.format_scales.get(operator.format or "", self.scale)
        if operator.kind in ATTENTION and self.attention_scale is not None:
            return self.attention_scale
        return self.scale if self.other_scale is None else self.other_scale
