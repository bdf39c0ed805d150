"""What a correction was fitted on, so that a table knows how long it holds, and for which models and spaces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import Field, PositiveInt, field_validator

from evaluators.latency.identity import model_name
from evaluators.latency.interpolation import TimeGrid
from evaluators.latency.table.base import StoredRecord
from evaluators.latency.table.entry import Entry
from evaluators.latency.workload import AXIS_NAMES, Operator, OperatorKind
from search_spaces.space import SearchSpace

SAME = 1e-6
"""Relative difference up to which two times of an operator are one: a sum may be taken in another order."""
_WITH_FUNCTION = frozenset({OperatorKind.ACTIVATION, OperatorKind.ATTENTION_CORE, OperatorKind.ROTARY})

Kept = tuple[Annotated[int, Field(ge=0)], PositiveInt]


class CorrectionBasis(StoredRecord):
    """The models that a correction was fitted on: what they are of, and what the table said of their operators."""

    model: str = Field(min_length=1)
    """Name of the models that do the same work in their units: architecture and a digest of the dense operators."""
    wanted: PositiveInt
    """Whole models that were to be measured; more than were where time was over."""
    covered: dict[str, Annotated[Kept, Field(strict=False)]]
    """Fewest and most groups of a unit that the space keeps, by the unit's kind and the format ("attention w8a8")."""
    times_ms: dict[str, Annotated[float, Field(gt=0)]]
    """Times of the models' operators by the table, in milliseconds without correction, by operator."""

    @field_validator("times_ms")
    @classmethod
    def _are_operators(cls, times_ms: dict[str, float]) -> dict[str, float]:
        for text in times_ms:
            operator_of(text)
        return times_ms

    @classmethod
    def of(cls, space: SearchSpace, times_ms: Mapping[Operator, float], *, wanted: int) -> Self:
        """Return the basis of a correction.

        Args:
            space: Where the models' policies are from.
            times_ms: Times of the models' operators by the table, without correction.
            wanted: Models that were to be measured, 1 or more.
        """
        return cls(
            model=model_name(space.structure),
            wanted=wanted,
            covered=covered_by(space),
            times_ms={str(operator): times_ms[operator] for operator in sorted(times_ms, key=str)},
        )

    def holds(self, entries: Iterable[Entry]) -> bool:
        """Whether rows give the models' operators the times that they had when the correction was fitted."""
        grid = TimeGrid({entry.operator: entry.median_ms for entry in entries})
        found = ((grid.find(operator_of(text)), ms) for text, ms in self.times_ms.items())
        return all(time is not None and math.isclose(time.time_ms, ms, rel_tol=SAME) for time, ms in found)

    def lacks(self, space: SearchSpace) -> tuple[str, ...]:
        """Name the kinds and formats of a space that reach beyond the one that the models are from."""
        return tuple(
            f"{name} ({low} to {high} groups)"
            for name, (low, high) in covered_by(space).items()
            if name not in self.covered or low < self.covered[name][0] or high > self.covered[name][1]
        )


def covered_by(space: SearchSpace) -> dict[str, tuple[int, int]]:
    """Return the fewest and most groups that the choices of a space keep, by kind of unit and format.

    The dense policy is among them; a unit that is gone is not, as it has no format.
    """
    kept: dict[str, set[int]] = {}
    for unit in space.structure.units:
        kept.setdefault(f"{unit.kind.value} {space.base_format}", set()).add(unit.groups)
        for choice in space.choices(unit.name):
            if choice.keep:
                kept.setdefault(f"{unit.kind.value} {choice.format}", set()).add(choice.keep)
    return {name: (min(found), max(found)) for name, found in sorted(kept.items())}


def operator_of(text: str) -> Operator:
    """Return the operator of a text, the inverse of its `str`.

    Raises:
        ValueError: The text is not that of an operator.
    """
    kind, *words = text.split(" ")
    sizes = dict(word.split("=", 1) for word in words if "=" in word)
    name = " ".join(word for word in words if "=" not in word) or None
    if kind not in {known.value for known in OperatorKind} or not all(size.isdecimal() for size in sizes.values()):
        raise ValueError(_refusal(text))
    found = OperatorKind(kind)
    names = {"function": name} if found in _WITH_FUNCTION else {"format": name}
    operator = Operator(found, tuple(sorted((axis, int(size)) for axis, size in sizes.items())), **names)
    if sizes.keys() != set(AXIS_NAMES[found]) or str(operator) != text:
        raise ValueError(_refusal(text))
    return operator


def _refusal(text: str) -> str:
    return (
        'an operator is written as its kind, its format or function and its sizes ("quantize features=8 tokens=4"); '
        f"got {text[:80]!r}; profile again"
    )
