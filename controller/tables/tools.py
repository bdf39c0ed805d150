"""`paretrim table`: shows, checks, compares and joins latency tables, and makes them of other people's measurements."""

from pathlib import Path

from controller.errors import UsageError
from controller.job import JobSpec
from controller.tables.mapping_file import load_mapping
from controller.tables.results import Coverage, ShippedTable, TableComparison, TableReport, TableWritten
from evaluators.latency.diff import compare_tables
from evaluators.latency.importing import import_table
from evaluators.latency.merge import merge_tables
from evaluators.latency.shipped import PREFIX, check_writable, shipped_names, table_file
from evaluators.latency.summary import find_oddities, summarise
from evaluators.latency.table import ForeignTableError, LatencyTable, UnitBasis, check_fingerprint, load_table
from workers.targets.device import DEVICES

_NAMED = 3


def show_table(path: Path) -> TableReport:
    """Summarise a table file.

    Raises:
        TableError: It can't be read, or was altered.
    """
    return _report(path, load_table(path))


def list_tables() -> tuple[ShippedTable, ...]:
    """List the tables that come with the package.

    Raises:
        TableError: One was altered.
    """
    return tuple(_shipped(f"{PREFIX}{name}") for name in shipped_names())


def check_table(path: Path, job: JobSpec | None = None) -> TableReport:
    """Check a table file, and whether it answers for all policies of a job, and a search of the job takes it.

    Raises:
        TableError: The file can't be read, or was altered.
        MissingEntryError: It lacks operators of the job.
    """
    table = load_table(path)
    coverage = None if job is None else _coverage(path, table, job)
    return _report(path, table, warnings=find_oddities(table), coverage=coverage)


def compare_files(first: Path, second: Path) -> TableComparison:
    """Compare two table files.

    Raises:
        TableError: One can't be read, or was altered.
    """
    return TableComparison(first=first, second=second, diff=compare_tables(load_table(first), load_table(second)))


def merge_files(first: Path, second: Path, out: Path) -> TableWritten:
    """Join two table files into a new one.

    Raises:
        TableError: One can't be read, or was altered.
        ForeignTableError: They are of other targets, devices, runtimes or numbers of threads.
        UsageError: The new file exists already.
        ShippedTableError: The new file would lie among the tables of the package.
    """
    check_new(out)
    merged = merge_tables(load_table(first), load_table(second))
    merged.table.save(out)
    notes = [f"{merged.added} operators of {second} that {first} lacked"]
    if merged.conflicts:
        named = "; ".join(str(operator) for operator in merged.conflicts[:_NAMED])
        more = f"; and {len(merged.conflicts) - _NAMED} more" if len(merged.conflicts) > _NAMED else ""
        notes.append(
            f"{len(merged.conflicts)} operators in both, of which the row of more repeats stays: {named}{more}"
        )
    notes += [
        f"the correction for {correction.name} was fitted on rows or cache curves that did not stay, or that others "
        "came between, and is left out; `paretrim calibrate-table` fits a new one"
        for correction in merged.dropped_corrections
    ]
    notes += [
        f"both have a correction for {correction.name}; that of {correction.fit.models} models is left out, as the "
        "other was fitted on as many or more"
        for correction in merged.outdone_corrections
    ]
    return _written(out, merged.table, notes)


def import_file(source: Path, mapping: Path, out: Path) -> TableWritten:
    """Make a table file of somebody else's measurements.

    Raises:
        JobError: The mapping is not valid.
        SourceFileError: The measurements do not fit the mapping.
        UsageError: The new file exists already.
        ShippedTableError: The new file would lie among the tables of the package.
    """
    declared = load_mapping(mapping)
    check_new(out)
    table = import_table(source, declared)
    table.save(out)
    (origin,) = table.provenance.sources
    notes = [f"{origin.rows} times of {origin.name} (licence: {origin.licence})"]
    if origin.joined:
        notes.append(f"{origin.joined} of them measured an operator once more: the median of its times stands")
    if origin.unit_basis is UnitBasis.ASSUMED:
        notes.append(f"that the times are in {origin.unit.value} is an assumption of the mapping")
    return _written(out, table, notes)


def check_new(out: Path) -> None:
    """Check that a table may be written to a file: a new one, and not among the tables of the package.

    Raises:
        UsageError: The file exists.
        ShippedTableError: It would lie among the tables of the package.
    """
    check_writable(out)
    if out.exists():
        raise UsageError(f"a table is written to a new file; {out} exists; name another, or remove it first")


def _shipped(name: str) -> ShippedTable:
    table = load_table(Path(name))
    mark = table.fingerprint
    here = DEVICES.get(table.target)(mark.threads).fingerprint() if table.target in DEVICES else None
    return ShippedTable(
        name=name,
        file=table_file(name),
        target=table.target,
        device=mark.device,
        runtime=f"{mark.runtime} {mark.runtime_version}",
        threads=mark.threads,
        entries=len(table.entries),
        workloads=tuple(f"{c.batch} x {c.sequence_length} tokens" for c in table.corrections),
        differences=(f"no target {table.target!r} here",) if here is None else mark.differences(here),
    )


def _written(out: Path, table: LatencyTable, notes: list[str]) -> TableWritten:
    return TableWritten(file=out, target=table.target, entries=len(table.entries), notes=tuple(notes))


def _report(
    path: Path, table: LatencyTable, *, warnings: tuple[str, ...] = (), coverage: Coverage | None = None
) -> TableReport:
    return TableReport(
        file=path,
        checksum=table.checksum,
        target=table.target,
        fingerprint=table.fingerprint.model_dump(mode="json"),
        provenance=table.provenance.model_dump(mode="json"),
        entries=len(table.entries),
        kinds=summarise(table),
        corrections=tuple(correction.model_dump(mode="json") for correction in table.corrections),
        caches=tuple(curve.model_dump(mode="json") for curve in table.caches),
        energy=None if table.energy is None else table.energy.model_dump(mode="json"),
        warnings=warnings,
        coverage=coverage,
    )


def _coverage(path: Path, table: LatencyTable, job: JobSpec) -> Coverage:
    # The job's model and target load what is heavy; the other commands do without.
    from controller.preparation import describe, price_by_table
    from workers.profile import required_operators

    allowed = {"table": path, "allow_foreign_table": True}
    planned = job.model_copy(update={"target": job.target.model_copy(update=allowed)})
    description = describe(planned)
    priced = price_by_table(planned, description)
    return Coverage(
        study=job.name,
        operators=len(required_operators(description.space, description.workload)),
        extrapolated=priced.extrapolated,
        foreign=priced.foreign,
        corrected=table.correction(description.workload, description.structure) is not None,
        refusal=_refusal(table, job) if priced.foreign else None,
    )


def _refusal(table: LatencyTable, job: JobSpec) -> str | None:
    """Why a search of a job refuses a foreign table; None where the job allows it."""
    here = DEVICES.get(job.target.name)(job.target.threads).fingerprint()
    try:
        check_fingerprint(table, here, target=job.target.name, allow_foreign=job.target.allow_foreign_table)
    except ForeignTableError as error:
        return str(error)
    return None
