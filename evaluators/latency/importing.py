"""Reads files of times that others measured, by a mapping of their columns."""

import hashlib
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from evaluators.latency.mapping import AxisColumn, OperatorMapping, TableMapping
from evaluators.latency.source_file import (
    CellError,
    Row,
    SourceFileError,
    read_content,
    read_number,
    read_rows,
    read_whole,
)
from evaluators.latency.table import Entry, LatencyTable, Provenance, Source
from evaluators.latency.workload import Operator


def import_table(path: Path, mapping: TableMapping) -> LatencyTable:
    """Read a file of times as a latency table.

    Args:
        path: CSV with a line of names at the top, UTF-8.
        mapping: What its columns mean.

    Returns:
        The table, with the source and its licence in the provenance. Where the file measures an operator several
        times, the median of its times is taken.

    Raises:
        SourceFileError: The file can't be read, or a cell that the mapping asks for is not what it should be.
    """
    content = read_content(path)
    entries = read_entries(content, mapping, name=path.name)
    joined = join(entries)
    source = Source(
        name=mapping.source.name,
        url=mapping.source.url,
        licence=mapping.source.licence,
        file=path.name,
        file_sha256=hashlib.sha256(content).hexdigest(),
        rows=len(entries),
        joined=len(entries) - len(joined),
        unit=mapping.time_unit,
        unit_basis=mapping.time_unit_basis,
        assumptions=mapping.source.assumptions,
    )
    return LatencyTable(
        target=mapping.target,
        fingerprint=mapping.fingerprint,
        provenance=Provenance(measured_at=mapping.measured_at, clocks=mapping.clocks, sources=(source,)),
        entries=joined,
        energy=mapping.energy,
    )


def read_entries(content: bytes, mapping: TableMapping, *, name: str) -> tuple[Entry, ...]:
    """Read all times of a file, in its order; an operator may occur several times.

    Args:
        content: The file.
        mapping: What its columns mean.
        name: Name of the file, for messages.

    Raises:
        SourceFileError: See `import_table`.
    """
    rows = tuple(read_rows(content, name))
    if not rows:
        raise SourceFileError(f"{name}: a file of times has rows below its column names; got none; is it whole?")
    found = []
    for number, operator in enumerate(mapping.operators):
        _check_columns(rows[0][1], operator, f"{name}: operators[{number}] ({operator.kind.value})")
        chosen = [(line, row) for line, row in rows if _is_meant(row, operator.where)]
        if not chosen:
            raise SourceFileError(
                f"{name}: operators[{number}] ({operator.kind.value}): `where` picks rows of the file; "
                f"{dict(operator.where)} picks none; correct it"
            )
        found += [_entry(line, row, operator, mapping, name) for line, row in chosen]
    return tuple(found)


def join(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return one row for each operator, sorted by operator: the median of its times and spreads, all its repeats."""
    by_operator: dict[Operator, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_operator[entry.operator].append(entry)
    return tuple(_joined(by_operator[operator]) for operator in sorted(by_operator, key=str))


def _joined(entries: Sequence[Entry]) -> Entry:
    if len(entries) == 1:
        return entries[0]
    spreads_ms = [entry.spread_ms for entry in entries if entry.spread_ms is not None]
    repeats = [entry.repeats for entry in entries if entry.repeats is not None]
    return entries[0].model_copy(
        update={
            "median_ms": statistics.median(entry.median_ms for entry in entries),
            "spread_ms": statistics.median(spreads_ms) if len(spreads_ms) == len(entries) else None,
            "repeats": sum(repeats) if len(repeats) == len(entries) else None,
        }
    )


def _check_columns(row: Row, operator: OperatorMapping, where: str) -> None:
    columns = [axis for axis in operator.axes.values() if isinstance(axis, AxisColumn)]
    named: list[str | int | None] = [operator.time, *operator.where, operator.format_column, operator.repeats]
    named += [None if operator.spread is None else operator.spread.column]
    named += [axis for axis in operator.axes.values() if not isinstance(axis, AxisColumn)]
    named += [name for column in columns for name in (column.column, column.divided_by)]
    missing = sorted({name for name in named if isinstance(name, str) and name not in row})
    if missing:
        raise SourceFileError(
            f"{where}: the mapping names columns of the file; {missing} are none; the file has {', '.join(row)[:600]}"
        )


def _is_meant(row: Row, where: Mapping[str, str | int]) -> bool:
    return all(row[column] == str(value) for column, value in where.items())


def _entry(line: int, row: Row, operator: OperatorMapping, mapping: TableMapping, name: str) -> Entry:
    column = operator.time
    try:
        median_ms = read_number(row, column) * mapping.time_unit.in_ms
        spread_ms = None
        if operator.spread is not None:
            column = operator.spread.column
            spread_ms = (
                read_number(row, column) * mapping.time_unit.in_ms * operator.spread.measure.interquartile_ranges
            )
        repeats = read_whole(row, operator.repeats) if isinstance(operator.repeats, str) else operator.repeats
        axes = {axis: _size(row, declared) for axis, declared in operator.axes.items()}
        return Entry(
            kind=operator.kind,
            format=row[operator.format_column] if operator.format_column else operator.format,
            function=operator.function,
            axes=axes,
            median_ms=median_ms,
            spread_ms=spread_ms,
            repeats=repeats,
            working_set_bytes=None,
        )
    except CellError as error:
        raise SourceFileError(f"{name}: line {line}: {error}") from None
    except ValidationError as error:
        finding = error.errors()[0]
        place = ".".join(str(part) for part in finding["loc"])
        raise SourceFileError(
            f"{name}: line {line}, column {column!r}: {place}: {finding['msg']}; got {finding['input']!r}; correct the "
            "file, or leave the row out by `where`"
        ) from error


def _size(row: Row, axis: int | str | AxisColumn) -> int:
    if isinstance(axis, int):
        return axis
    if isinstance(axis, str):
        return read_whole(row, axis)
    if axis.values is None:
        size = read_whole(row, axis.column)
    elif row[axis.column] in axis.values:
        size = axis.values[row[axis.column]]
    else:
        raise CellError(
            f"column {axis.column!r}: `values` has a size for every text of the column; got {row[axis.column][:40]!r}; "
            "add it"
        )
    divisor = read_whole(row, axis.divided_by) if isinstance(axis.divided_by, str) else axis.divided_by
    if divisor == 0 or size * axis.times % divisor:
        raise CellError(
            f"column {axis.column!r}: a size is whole after `divided_by`; got {size * axis.times} / {divisor}; "
            "correct the mapping"
        )
    return size * axis.times // divisor
