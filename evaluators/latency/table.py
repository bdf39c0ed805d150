"""The latency table: measured times of operators on one target, stored with fingerprint and checksums."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from evaluators.latency.correction import Correction
from evaluators.latency.workload import Operator, OperatorKind, Workload

SCHEMA_VERSION: Literal[1] = 1
MAX_FILE_BYTES = 64 * 2**20


class TableError(ValueError):
    """A latency table is malformed or was altered; the message names the row."""


class ForeignTableError(ValueError):
    """A latency table was measured on other hardware, another runtime or other threads."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Fingerprint(_Record):
    """Where times hold: another value in any field gives other times."""

    device: str
    """Model of the CPU or GPU."""
    flags: tuple[str, ...] = Field(default=(), strict=False)
    """Instruction sets that kernels choose by, sorted."""
    runtime: str
    """Name of the runtime ("onnxruntime")."""
    runtime_version: str
    """Its version."""
    threads: PositiveInt
    """Threads of the runtime."""
    os: str
    """Operating system and architecture ("Linux x86_64")."""

    def differences(self, other: "Fingerprint") -> tuple[str, ...]:
        """Describe every field that differs ("threads: 1 there, 2 here"), `other` being here."""
        mine, its = self.model_dump(), other.model_dump()
        return tuple(f"{name}: {mine[name]!r} there, {its[name]!r} here" for name in mine if mine[name] != its[name])


class Provenance(_Record):
    """How the table came about."""

    measured_at: str
    """Date and time of the last measurement, UTC, ISO 8601."""
    rounds: PositiveInt
    """Passes over all operators, each in another order."""
    clocks: str | None = None
    """What is known of the clock frequency at the time."""
    notes: tuple[str, ...] = Field(default=(), strict=False)
    """Warnings of the measurement, such as a noisy machine."""


class Entry(_Record):
    """One row: the time of one operator."""

    kind: OperatorKind = Field(strict=False)
    """What is computed."""
    format: str | None = None
    """Number format of a linear operator."""
    function: str | None = None
    """Name of an activation function."""
    axes: dict[str, PositiveInt]
    """Sizes by axis."""
    median_ms: float = Field(gt=0)
    """Median time of one run."""
    spread_ms: float = Field(ge=0)
    """Interquartile range of the runs."""
    repeats: PositiveInt
    """Timed runs."""
    working_set_bytes: int = Field(ge=0)
    """Weights that pass through the caches between two runs of the same ones, as in the model that was profiled."""

    @property
    def operator(self) -> Operator:
        """What the row is about."""
        return Operator.of(self.kind, format=self.format, function=self.function, **self.axes)


class WorkloadCorrection(_Record):
    """A fitted correction and the workload that it holds for."""

    batch: PositiveInt
    """Examples in one call."""
    sequence_length: PositiveInt
    """Tokens of one example."""
    fit: Correction
    """The correction, with its error on models left out."""


class LatencyTable(_Record):
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

    @property
    def checksum(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return _digest(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Canonical JSON with checksums, one line a row, so that equal tables have equal text."""
        body = self.model_dump(mode="json")
        rows = body.pop("entries")
        head = json.dumps(body, sort_keys=True, indent=1)[:-2]
        entries = ",\n  ".join(json.dumps({**row, "checksum": _digest(row)[:8]}, sort_keys=True) for row in rows)
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


def load_table(path: Path) -> LatencyTable:
    """Read and check a latency table.

    Raises:
        TableError: No such file, too large, not JSON, another schema version, a row that is malformed, repeated or out
            of range, or a checksum that does not match.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise TableError(
            f"no latency table {str(path)!r} ({error.strerror}); correct target.table, leave it out to measure this "
            "machine, or write one with `paretrim profile`"
        ) from error
    if size > MAX_FILE_BYTES:
        raise TableError(
            f"{path}: a latency table has at most {MAX_FILE_BYTES} bytes; got {size}; is it the right file?"
        )
    try:
        return parse_table(path.read_text(encoding="utf-8"))
    except (TableError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: {error}") from error


def parse_table(text: str) -> LatencyTable:
    """Read and check the text of a latency table; `load_table` says what is refused."""
    try:
        body = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TableError(f"a latency table is one JSON object; got {text[:60]!r} ({error}); profile again") from error
    if not isinstance(body, dict) or not isinstance(body.get("entries"), list):
        raise TableError(f'a latency table is one JSON object with a list "entries"; got {text[:60]!r}; profile again')
    if body.get("schema_version") != SCHEMA_VERSION:
        raise TableError(
            f"this program reads latency tables of schema_version {SCHEMA_VERSION}; "
            f"got {body.get('schema_version')!r}; profile again, or use the paretrim release that wrote it"
        )
    checksum = body.pop("checksum", None)
    body["entries"] = [_read_entry(row, fields) for row, fields in enumerate(body["entries"])]
    try:
        table = LatencyTable.model_validate(body)
    except ValidationError as error:
        raise TableError(f"{_first(error)}; profile again") from error
    if checksum != table.checksum:
        raise TableError(
            f"the checksum of the table is {table.checksum}; the file says {checksum!r}: something outside its rows "
            "was altered; profile again"
        )
    return table


def _read_entry(row: int, fields: Any) -> Entry:
    name = f"entries[{row}]"
    if not isinstance(fields, dict):
        raise TableError(f"{name}: a row is an object; got {fields!r}; profile again")
    content = {key: value for key, value in fields.items() if key != "checksum"}
    name = f"{name} ({_describe(content)})"
    try:
        entry = Entry.model_validate(content)
    except ValidationError as error:
        raise TableError(f"{name}: {_first(error)}; profile again") from error
    digest = _digest(entry.model_dump(mode="json"))[:8]
    if fields.get("checksum") != digest:
        raise TableError(
            f"{name}: the checksum of the row is {digest}; the file says {fields.get('checksum')!r}: "
            "the row was altered; profile again"
        )
    return entry


def _describe(fields: dict[str, Any]) -> str:
    axes = fields.get("axes")
    sizes = [f"{name}={size}" for name, size in sorted(axes.items())] if isinstance(axes, dict) else []
    return " ".join([*(str(fields[key]) for key in ("kind", "format", "function") if fields.get(key)), *sizes])[:200]


def _first(error: ValidationError) -> str:
    """The first finding of pydantic, in one line."""
    finding = error.errors()[0]
    where = ".".join(str(part) for part in finding["loc"])
    message = finding["msg"].removeprefix("Value error, ")
    return f"{where}: {message}; got {finding['input']!r}" if where else message


def _digest(body: Any) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def check_fingerprint(table: LatencyTable, here: Fingerprint, *, allow_foreign: bool = False) -> tuple[str, ...]:
    """Check that a table was measured on this device, runtime and number of threads.

    Args:
        table: The table.
        here: Fingerprint of this machine with the threads of the job.
        allow_foreign: Take a foreign table, for planning only.

    Returns:
        The differences, empty where the table is from here. Every result that rests on a foreign table must say so.

    Raises:
        ForeignTableError: The table is foreign and that is not allowed.
    """
    differences = table.fingerprint.differences(here)
    if differences and not allow_foreign:
        raise ForeignTableError(
            "a latency table holds for the device, runtime and threads that it was measured with; this one differs: "
            f"{'; '.join(differences)}; measure this machine with `paretrim profile`, or pass --allow-foreign-table "
            "(allow_foreign_table: true in the job's target) for planning"
        )
    return differences
