"""How somebody else's file of times is read: a mapping of its columns to operators, units, device and source."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from evaluators.latency.table import EnergyCoefficients, Fingerprint, TimeUnit, UnitBasis
from evaluators.latency.workload import AXIS_NAMES, OperatorKind

NOT_STATED = "not stated"
_CONFIG = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class SpreadMeasure(StrEnum):
    """What a source calls spread."""

    INTERQUARTILE_RANGE = "interquartile_range"
    """Third quartile less the first, in the unit of the times."""
    STANDARD_DEVIATION = "standard_deviation"
    """Standard deviation, in the unit of the times; stored as the interquartile range that normal times would have."""

    @property
    def interquartile_ranges(self) -> float:
        """Interquartile ranges in one of the measure."""
        return {SpreadMeasure.INTERQUARTILE_RANGE: 1.0, SpreadMeasure.STANDARD_DEVIATION: 1.349}[self]


class AxisColumn(BaseModel):
    """The size of an axis by a column."""

    model_config = _CONFIG

    column: str
    """Name of the column."""
    values: dict[str, PositiveInt] | None = None
    """Sizes by the column's text, where the column holds no sizes (the number of a layer); without it the column's
    text is a whole number."""
    times: PositiveInt = 1
    """Factor on the size, 1 or more: 3 where one column is the width of each of three joined outputs."""
    divided_by: PositiveInt | str = 1
    """Divisor of the size, 1 or more, or the name of a column that holds it (tensor-parallel workers)."""


class SpreadColumn(BaseModel):
    """The spread of the runs by a column."""

    model_config = _CONFIG

    column: str
    """Name of the column."""
    measure: SpreadMeasure
    """What it holds: interquartile_range or standard_deviation."""


class OperatorMapping(BaseModel):
    """Rows of the source that measure operators of one kind."""

    model_config = _CONFIG

    kind: OperatorKind
    """What is computed: a kind of operator."""
    format: str | None = None
    """Number format of linear operators and convolutions; any name."""
    format_column: str | None = None
    """Column that names the format, in place of `format`."""
    function: str | None = None
    """As of `Operator`: an activation function's name, which columns a rotation pairs, or "causal" of attention."""
    where: dict[str, str | int] = {}
    """Rows that are meant, by the text or whole number in some columns; without it all rows are."""
    time: str
    """Column of the median times."""
    spread: SpreadColumn | None = None
    """Column of the spread; without it the spread is not known."""
    repeats: PositiveInt | str | None = None
    """Timed runs behind a time, or the column that holds them; without it they are not known."""
    axes: dict[str, PositiveInt | str | AxisColumn]
    """Size of every axis of the kind: a number, the name of a column, or a column with how to read it."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        expected = AXIS_NAMES[self.kind]
        if self.axes.keys() != set(expected):
            raise ValueError(
                f"the axes of {self.kind.value} are {', '.join(expected)}; got {', '.join(self.axes) or 'none'}"
            )
        if self.format is not None and self.format_column is not None:
            raise ValueError("a format is named once, by format or by format_column; got both; remove one")
        return self


class SourceMapping(BaseModel):
    """Where the figures are from."""

    model_config = _CONFIG

    name: str = Field(min_length=1)
    """Who measured what, in a line."""
    url: str | None = None
    """Where it is published."""
    licence: str = Field(min_length=1)
    """Licence that the figures may be used under ("MIT"), or "not stated"."""
    assumptions: tuple[str, ...] = ()
    """What the source does not state and this mapping takes for granted; kept in the table."""


class TableMapping(BaseModel):
    """A file of times that somebody else measured, and what its columns mean."""

    model_config = _CONFIG

    schema_version: Literal[1] = 1
    """Version of this form of mapping, 1."""
    target: str = Field(min_length=1)
    """Name of the target that the table is for; a new one keeps it apart from what was measured here."""
    device: str = Field(min_length=1)
    """Model of the CPU or GPU."""
    flags: tuple[str, ...] = ()
    """Instruction sets that kernels choose by."""
    driver: str | None = None
    """Version of the device's driver."""
    runtime: str = Field(min_length=1)
    """Name of the runtime."""
    runtime_version: str = NOT_STATED
    """Its version."""
    threads: PositiveInt
    """Threads of the runtime; 1 for a GPU."""
    os: str = NOT_STATED
    """Operating system and architecture."""
    clocks: str | None = None
    """What the source says of the clock frequency."""
    measured_at: str | None = None
    """When it was measured, ISO 8601."""
    time_unit: TimeUnit
    """Unit of the time columns: s, ms or us. Look for it at the source; it is never guessed from the numbers."""
    time_unit_basis: UnitBasis
    """Whether the source states that unit: stated, or assumed with the reason among source.assumptions."""
    source: SourceMapping
    """Where the figures are from."""
    energy: EnergyCoefficients | None = None
    """What operations cost on the device, in picojoule, with a source of its own; without it energies are estimated by
    coefficients of the literature."""
    operators: tuple[OperatorMapping, ...] = Field(min_length=1)
    """What is measured; one row of the file may measure several operators."""

    @model_validator(mode="after")
    def _assumption_is_explained(self) -> Self:
        if self.time_unit_basis is UnitBasis.ASSUMED and not self.source.assumptions:
            raise ValueError(
                "an assumed time_unit comes with its reason; got no source.assumptions; write there why it is "
                f"{self.time_unit.value}"
            )
        return self

    @property
    def fingerprint(self) -> Fingerprint:
        """Device, runtime and threads of the source."""
        return Fingerprint(
            device=self.device,
            flags=self.flags,
            driver=self.driver,
            runtime=self.runtime,
            runtime_version=self.runtime_version,
            threads=self.threads,
            os=self.os,
        )
