"""What the services on latency tables hand to whoever shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.results import Record
from evaluators.latency.diff import TableDiff
from evaluators.latency.summary import KindSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSummary(Record):
    """What a profile run wrote.

    Attributes:
        target: Name of the target.
        table: The file.
        entries: Operators in it.
        added: How many of them this run measured.
        needed: Operators that it was to answer for; those between measured ones are interpolated.
        fingerprint: Hardware, runtime and threads that it was measured with, for people.
        spread: Median relative spread of the repeats.
        correction_models: Whole models that the workload's correction was fitted on; 0 where there is none.
        correction_error_pct: Median error on models left out of that fit, in per cent.
        correction_max_error_pct: The largest, likewise.
        notes: What the profiler noted about the machine.
        seconds: Wall time.
    """

    target: str
    table: Path
    entries: int
    added: int = 0
    needed: int = 0
    fingerprint: str
    spread: float | None = None
    correction_models: int = 0
    correction_error_pct: float | None = None
    correction_max_error_pct: float | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage(Record):
    """Whether a table answers for all policies of a job.

    Attributes:
        study: Name of the job's study.
        operators: Operators that the job's space can reach.
        extrapolated: How many of them lie outside what was measured; above 0 only where that is allowed.
        foreign: How the table's device, runtime and threads differ from this machine's.
        corrected: Whether the table has a correction for the job's workload.
        refusal: Why a search of the job refuses the table all the same; None where it takes it.
    """

    study: str
    operators: int
    extrapolated: int
    foreign: tuple[str, ...]
    corrected: bool
    refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport(Record):
    """What a table file holds.

    Attributes:
        file: The file.
        checksum: Its checksum.
        target: Name of the target.
        fingerprint: Device, runtime and threads, by field.
        provenance: How it came about, by field.
        entries: Number of rows.
        kinds: The rows by kind, format and function.
        corrections: Fitted corrections with their errors on models left out, each by field.
        caches: Curves of products whose weights stay in a cache, each by field.
        energy: Basis, source and figures of what it says of energy; None where it says nothing.
        warnings: What a sound table may have, and that is worth a look.
        coverage: Whether it answers for a job; None where none was named.
    """

    file: Path
    checksum: str
    target: str
    fingerprint: Mapping[str, Any]
    provenance: Mapping[str, Any]
    entries: int
    kinds: tuple[KindSummary, ...]
    corrections: tuple[Mapping[str, Any], ...]
    caches: tuple[Mapping[str, Any], ...] = ()
    energy: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    coverage: Coverage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedTable(Record):
    """A table that comes with the package.

    Attributes:
        name: What jobs and commands call it ("shipped:NAME").
        file: The file.
        target: Name of the target.
        device: CPU or GPU.
        runtime: Runtime and version.
        threads: Threads of the runtime.
        entries: Number of rows.
        workloads: Calls that it has a correction for ("8 x 64 tokens").
        differences: How device, runtime and threads differ from this machine's; empty where it holds here.
    """

    name: str
    file: Path
    target: str
    device: str
    runtime: str
    threads: int
    entries: int
    workloads: tuple[str, ...]
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableComparison(Record):
    """How two table files differ.

    Attributes:
        first: The file that ratios are relative to.
        second: The other.
        diff: The differences.
    """

    first: Path
    second: Path
    diff: TableDiff


@dataclass(frozen=True, slots=True, kw_only=True)
class TableWritten(Record):
    """A table file that was made of others.

    Attributes:
        file: The file.
        target: Name of the target.
        entries: Number of rows.
        notes: What is worth knowing of how it was made, a line each.
    """

    file: Path
    target: str
    entries: int
    notes: tuple[str, ...] = ()
