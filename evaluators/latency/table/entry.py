"""A row of a latency table: the measured time of one operator."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from evaluators.latency.table.base import StoredRecord
from evaluators.latency.workload import AXIS_NAMES, Operator, OperatorKind


class Entry(StoredRecord):
    """One row: the time of one operator."""

    kind: OperatorKind = Field(strict=False)
    """What is computed."""
    format: str | None = None
    """Number format of a linear operator or convolution, or of a table of codes; imported rows may name any."""
    function: str | None = None
    """As of `Operator`: an activation function's name, which columns a rotation pairs, or "causal" of attention."""
    axes: dict[str, PositiveInt]
    """Sizes by axis."""
    median_ms: float = Field(gt=0)
    """Median time of an undisturbed run in milliseconds: of the fastest fifth where this project measured."""
    spread_ms: float | None = Field(ge=0)
    """How wide these times spread in milliseconds: up to the first quartile of the runs where this project measured,
    else as the source defines it; None where an imported source does not state any spread."""
    repeats: PositiveInt | None
    """Timed runs; None where an imported source does not state them."""
    working_set_bytes: int | None = Field(ge=0)
    """Weights that pass through the caches between two runs of the same ones, as in the model that was profiled; None
    where an imported source does not state it."""

    @model_validator(mode="after")
    def _axes_are_those_of_the_kind(self) -> Self:
        if self.axes.keys() != set(AXIS_NAMES[self.kind]):
            raise ValueError(
                f"the axes of {self.kind.value} are {', '.join(AXIS_NAMES[self.kind])}; got {', '.join(self.axes)}"
            )
        return self

    @classmethod
    def of(
        cls,
        operator: Operator,
        median_ms: float,
        *,
        spread_ms: float | None = None,
        repeats: int | None = None,
        working_set_bytes: int | None = None,
    ) -> Self:
        """Return the row of an operator.

        Raises:
            ValidationError: The time is not above zero, or a spread, a count or a size is below it.
        """
        return cls(
            kind=operator.kind,
            format=operator.format,
            function=operator.function,
            axes=dict(operator.axes),
            median_ms=median_ms,
            spread_ms=spread_ms,
            repeats=repeats,
            working_set_bytes=working_set_bytes,
        )

    @property
    def operator(self) -> Operator:
        """What the row is about."""
        return Operator.of(self.kind, format=self.format, function=self.function, **self.axes)

    @property
    def relative_spread(self) -> float | None:
        """Spread over median; None where the spread is not known."""
        return None if self.spread_ms is None else self.spread_ms / self.median_ms
