"""The record of a latency table, and its text."""

import json
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from evaluators.latency.correction import Correction
from evaluators.latency.table.base import StoredRecord, digest_of
from evaluators.latency.table.energy import TableEnergy
from evaluators.latency.table.entry import Entry
from evaluators.latency.table.fingerprint import Fingerprint
from evaluators.latency.table.provenance import Provenance
from evaluators.latency.workload import Operator, Workload

SCHEMA_VERSION: Literal[1] = 1
ROW_DIGITS = 8
"""Hexadecimal digits of a row's checksum."""


class WorkloadCorrection(StoredRecord):
    """A fitted correction and the workload that it holds for."""

    batch: PositiveInt
    """Examples in one call."""
    sequence_length: PositiveInt
    """Tokens of one example."""
    fit: Correction
    """The correction, with its error on models left out."""


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
    """Corrections, one a workload at most."""
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
        workloads = [(c.batch, c.sequence_length) for c in self.corrections]
        if len(set(workloads)) != len(workloads):
            raise ValueError(f"a workload has one correction; got (batch, sequence_length) {workloads}")
        return self

    def correction(self, workload: Workload) -> Correction | None:
        """Return the correction of a workload, or None where none was fitted."""
        for correction in self.corrections:
            if (correction.batch, correction.sequence_length) == (workload.batch, workload.sequence_length):
                return correction.fit
        return None

    def with_correction(self, workload: Workload, fit: Correction) -> "LatencyTable":
        """Return the table with the correction of a workload set."""
        added = WorkloadCorrection(batch=workload.batch, sequence_length=workload.sequence_length, fit=fit)
        key = (added.batch, added.sequence_length)
        others = tuple(c for c in self.corrections if (c.batch, c.sequence_length) != key)
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
        """JSON values; a table without energy has the text and checksum that it had before tables knew of it."""
        content = self.model_dump(mode="json")
        if self.energy is None:
            del content["energy"]
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
