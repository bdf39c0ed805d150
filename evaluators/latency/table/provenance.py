"""How a table came about: who measured when, and where imported rows are from."""

from enum import StrEnum
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from evaluators.latency.table.base import StoredRecord


class TimeUnit(StrEnum):
    """Unit of a source's times."""

    SECONDS = "s"
    """Seconds."""
    MILLISECONDS = "ms"
    """Milliseconds."""
    MICROSECONDS = "us"
    """Microseconds."""

    @property
    def in_ms(self) -> float:
        """Milliseconds in one of the unit."""
        return {TimeUnit.SECONDS: 1e3, TimeUnit.MILLISECONDS: 1.0, TimeUnit.MICROSECONDS: 1e-3}[self]


class UnitBasis(StrEnum):
    """How the unit of a source's times is known."""

    STATED = "stated"
    """The source states it."""
    ASSUMED = "assumed"
    """Whoever wrote the mapping assumed it, and says why in the assumptions."""


class Source(StoredRecord):
    """Where imported rows are from."""

    name: str = Field(min_length=1)
    """Who measured what, in a line."""
    url: str | None = None
    """Where it is published; None where it is not."""
    licence: str = Field(min_length=1)
    """Licence that the figures may be used under ("MIT"), or "not stated"."""
    file: str
    """Name of the file that was read."""
    file_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of that file."""
    rows: PositiveInt
    """Times that were read from it."""
    joined: int = Field(default=0, ge=0)
    """How many of them measured an operator once more; the median of all its times was taken."""
    unit: TimeUnit = Field(strict=False)
    """Unit of its times."""
    unit_basis: UnitBasis = Field(strict=False)
    """Whether the source states that unit."""
    assumptions: tuple[str, ...] = Field(default=(), strict=False)
    """What the source does not state and the mapping takes for granted."""


class Provenance(StoredRecord):
    """How the table came about."""

    measured_at: str | None
    """Date and time of the last measurement, UTC, ISO 8601; None where an imported source does not state it."""
    rounds: PositiveInt | None = None
    """Passes, each in another order, that every operator was sampled in at least (in old tables the most that any was);
    None where an imported source does not state it."""
    clocks: str | None = None
    """What is known of the clock frequency at the time."""
    cpus: tuple[NonNegativeInt, ...] | None = Field(default=None, strict=False)
    """Numbers of the CPUs that the runtime was kept on, sorted; None where that is not known."""
    notes: tuple[str, ...] = Field(default=(), strict=False)
    """Warnings of the measurement, such as a noisy machine, and what was joined from other tables."""
    sources: tuple[Source, ...] = Field(default=(), strict=False)
    """Where imported rows are from; empty where Paretrim measured all of them."""

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A table that does not know its CPUs has the text and checksum that it had before tables told them."""
        content: dict[str, Any] = serialize(self)
        if self.cpus is None:
            del content["cpus"]
        return content
