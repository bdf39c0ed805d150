"""The record of a latency table, and its text."""

import json
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from evaluators.latency.correction import Correction
from evaluators.latency.identity import model_name
from evaluators.latency.table.base import StoredRecord, digest_of
from evaluators.latency.table.basis import CorrectionBasis
from evaluators.latency.table.cache import CacheCurve
from evaluators.latency.table.energy import TableEnergy
from evaluators.latency.table.entry import Entry
from evaluators.latency.table.fingerprint import Fingerprint
from evaluators.latency.table.provenance import Provenance
from evaluators.latency.workload import Operator, Workload
from search_spaces.units import ModelStructure

SCHEMA_VERSION: Literal[1] = 1
ROW_DIGITS = 8
"""Hexadecimal digits of a row's checksum."""


class WorkloadCorrection(StoredRecord):
    """A fitted correction, the workload that it holds for, and what it was fitted on."""

    batch: PositiveInt
    """Examples in one call."""
    sequence_length: PositiveInt
    """Tokens of one example."""
    fit: Correction
    """The correction, with its error on models left out."""
    basis: CorrectionBasis | None = None
    """What it was fitted on; None where nobody wrote that down, so that it is taken for any model."""

    @property
    def key(self) -> tuple[int, int, str]:
        """What a table has one correction for: batch, tokens of an example, and the models' name ("" for any)."""
        return self.batch, self.sequence_length, "" if self.basis is None else self.basis.model

    @property
    def name(self) -> str:
        """What it holds for, in words."""
        of_models = "" if self.basis is None else f" of {self.basis.model}"
        return f"batch {self.batch}, {self.sequence_length} tokens{of_models}"

    @property
    def is_unfinished(self) -> bool:
        """Whether time was over before all the models were measured that were to be."""
        return self.basis is not None and self.fit.models < self.basis.wanted


class LatencyTable(StoredRecord):
    """Measured times of operators on one target."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of this record."""
    target: str
    """Name of the target."""
    fingerprint: Fingerprint
    """Device, runtime and threads."""
    provenance: Provenance
    """How it came about."""
    entries: tuple[Entry, ...] = Field(strict=False)
    """Rows; no operator occurs twice."""
    corrections: tuple[WorkloadCorrection, ...] = Field(default=(), strict=False)
    """Corrections, at most one for a workload and models that do the same work."""
    caches: tuple[CacheCurve, ...] = Field(default=(), strict=False)
    """How much faster products are whose weights stay in a cache, one a format and number of tokens at most."""
    energy: TableEnergy | None = None
    """Coefficients or measured power for energy; None leaves it to coefficients of the literature."""

    @model_validator(mode="after")
    def _no_duplicates(self) -> Self:
        first: dict[Operator, int] = {}
        for row, entry in enumerate(self.entries):
            if (earlier := first.setdefault(entry.operator, row)) != row:
                raise ValueError(
                    f"an operator has one row; got entries[{earlier}] and entries[{row}] for {entry.operator}; "
                    "remove one of them"
                )
        keys = [correction.key for correction in self.corrections]
        if len(set(keys)) != len(keys):
            raise ValueError(f"a workload and a model have one correction; got (batch, sequence_length, model) {keys}")
        curves = [(curve.format, curve.tokens) for curve in self.caches]
        if len(set(curves)) != len(curves):
            raise ValueError(f"a format and number of tokens has one cache curve; got (format, tokens) {curves}")
        return self

    def correction(self, workload: Workload, structure: ModelStructure | None = None) -> Correction | None:
        """Return the correction of a workload, or None where none was fitted; see `stored_correction`."""
        found = self.stored_correction(workload, structure)
        return None if found is None else found.fit

    def stored_correction(
        self, workload: Workload, structure: ModelStructure | None = None
    ) -> WorkloadCorrection | None:
        """Return what the table holds for a workload, with what it was fitted on; None where none was fitted.

        Args:
            workload: Batch and tokens.
            structure: The model: one that was fitted on models that do the same work is taken, else one that does not
                say on what. None takes that of the workload, where there is but one.
        """
        found = [c for c in self.corrections if c.key[:2] == (workload.batch, workload.sequence_length)]
        if structure is None and len(found) == 1:
            return found[0]
        names = ("",) if structure is None else (model_name(structure), "")
        return next((c for name in names for c in found if c.key[2] == name), None)

    def with_correction(
        self, workload: Workload, fit: Correction, basis: CorrectionBasis | None = None
    ) -> "LatencyTable":
        """Return the table with the correction of a workload set.

        It takes the place of that of the same models, and of one that does not say what it was fitted on.
        """
        added = WorkloadCorrection(batch=workload.batch, sequence_length=workload.sequence_length, fit=fit, basis=basis)
        gone = {added.key, (*added.key[:2], "")}
        others = tuple(c for c in self.corrections if c.key not in gone)
        return self.model_copy(update={"corrections": (*others, added)})

    def differences(self, other: "LatencyTable", *, names: tuple[str, str]) -> tuple[str, ...]:
        """Describe how target and fingerprint differ from another table's; `names` are those of the two tables."""
        first, second = names
        target = () if self.target == other.target else (f"target: {self.target!r} {first}, {other.target!r} {second}",)
        return (*target, *self.fingerprint.differences(other.fingerprint, names=names))

    def differences_from(self, here: Fingerprint, *, target: str | None = None) -> tuple[str, ...]:
        """Describe how target and fingerprint differ from those of this machine; None of the target takes any."""
        named = () if target in (None, self.target) else (f"target: {self.target!r} there, {target!r} here",)
        return (*named, *self.fingerprint.differences(here))

    @property
    def checksum(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return digest_of(self._content())

    def _content(self) -> dict[str, Any]:
        """JSON values; a table without energy, bases or caches has the text of before tables knew of them."""
        content = self.model_dump(mode="json")
        for correction in content["corrections"]:
            if correction["basis"] is None:
                del correction["basis"]
        if self.energy is None:
            del content["energy"]
        if not self.caches:
            del content["caches"]
        return content

    def to_json(self) -> str:
        """Canonical JSON with checksums, one line a row, so that equal tables have equal text."""
        body = self._content()
        rows = body.pop("entries")
        head = json.dumps(body, sort_keys=True, indent=1)[:-2]
        entries = ",\n  ".join(
            json.dumps({**row, "checksum": digest_of(row)[:ROW_DIGITS]}, sort_keys=True) for row in rows
        )
        return f'{head},\n "entries": [\n  {entries}\n ],\n "checksum": "{self.checksum}"\n}}\n'

    def save(self, path: Path) -> None:
        """Write the table; a reader sees the old file or the new one, never a part."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(self.to_json(), encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
