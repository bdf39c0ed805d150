"""What a check of a model on new data hands to whoever shows it."""

from dataclasses import dataclass
from enum import StrEnum

from controller.record import Record
from controller.results import SearchResult


class Verdict(StrEnum):
    """Whether a model still meets its job's constraint."""

    FINE = "fine"
    """It loses no more than the constraint allows."""
    BELOW = "below the constraint"
    """It loses more, and the whole interval does."""
    CANNOT_TELL = "cannot tell"
    """It loses more, but the interval reaches into what is allowed; or there is too little to go by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck(Record):
    """A model on new data, beside the dense model that it was made from.

    Attributes:
        model: The model as it was called.
        version: Version of the registered model; None for a folder.
        study: Study that it is from.
        trial: Trial of the study.
        data: The new data.
        examples: Examples that were scored.
        metric: Name of the quality.
        quality: Quality on the new data; None where it can't be measured without the dense model.
        low: Lower end of its confidence interval.
        high: Upper end of it.
        dense_quality: Quality of the dense model on the same examples; None where it is out of reach.
        recorded_quality: The task's metric of the model on the holdout as it was verified.
        recorded_dense_quality: The same of the dense model.
        drop: Loss against the dense model: paired on the new data, else against its recorded quality; None where
            neither can be had.
        drop_low: Lower end of the loss's confidence interval.
        drop_high: Upper end of it.
        paired: Whether the loss is that on the same examples.
        confidence: Confidence level of the intervals.
        max_quality_drop: The constraint.
        verdict: Whether the constraint is met.
        sentences: The same in words.
        search: What the search on the new data found; None where none was started.
        new_study: Name of that search's study; None likewise.
    """

    model: str
    version: str | None
    study: str
    trial: int
    data: str
    examples: int
    metric: str
    quality: float | None
    low: float | None
    high: float | None
    dense_quality: float | None
    recorded_quality: float
    recorded_dense_quality: float
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    paired: bool
    confidence: float
    max_quality_drop: float
    verdict: Verdict
    sentences: tuple[str, ...]
    search: SearchResult | None = None
    new_study: str | None = None
