"""Reads table files, which may come from anybody: every row and the whole are checked against their checksums."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluators.latency.shipped import table_file
from evaluators.latency.table.base import digest_of
from evaluators.latency.table.entry import Entry
from evaluators.latency.table.record import ROW_DIGITS, SCHEMA_VERSION, LatencyTable

MAX_FILE_BYTES = 64 * 2**20


class TableError(ValueError):
    """A latency table is malformed or was altered; the message names the row."""


def load_table(path: Path) -> LatencyTable:
    """Read and check a latency table.

    Args:
        path: Its file, or "shipped:NAME" of a table that comes with the package.

    Raises:
        ShippedTableError: No table of that name comes with the package.
        TableError: No such file, too large, not JSON, another schema version, a row that is malformed, repeated or out
            of range, or a checksum that does not match.
    """
    path = table_file(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TableError(
                f"{path}: a latency table has at most {MAX_FILE_BYTES} bytes; got {size}; is it the right file?"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TableError(
            f"no latency table {str(path)!r} ({error.strerror}); correct the path (in a job: target.table, or leave it "
            "out to measure this machine), or write one with `paretrim profile`"
        ) from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: {error}") from error
    try:
        return parse_table(text)
    except TableError as error:
        raise TableError(f"{path}: {error}") from error


def parse_table(text: str) -> LatencyTable:
    """Read and check the text of a latency table; `load_table` says what is refused."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TableError(
            f"a latency table is one JSON object; got {text[:60]!r} ({error}); check the path, or profile again"
        ) from error
    if not isinstance(body, dict) or not isinstance(body.get("entries"), list):
        raise TableError(
            f'a latency table is one JSON object with a list "entries"; got {text[:60]!r}; check the path, or '
            "profile again"
        )
    if body.get("schema_version") != SCHEMA_VERSION:
        raise TableError(
            f"this program reads latency tables of schema_version {SCHEMA_VERSION}; "
            f"got {body.get('schema_version')!r}; profile again, or use the paretrim release that wrote it"
        )
    checksum = body.pop("checksum", None)
    rows = [_read_entry(row, fields) for row, fields in enumerate(body["entries"])]
    try:
        table = LatencyTable.model_validate({**body, "entries": [entry for entry, _ in rows]})
    except ValidationError as error:
        raise TableError(f"{_first(error)}; profile again") from error
    # The digest is over what the file holds, not over the record: a field that a later release adds does not break it.
    expected = digest_of({**body, "entries": [content for _, content in rows]})
    if checksum != expected:
        raise TableError(
            f"the checksum of the table is {expected}; the file says {checksum!r}: something outside its rows "
            "was altered; profile again"
        )
    return table


def _read_entry(row: int, fields: Any) -> tuple[Entry, dict[str, Any]]:
    """A row, and what the file holds of it without its checksum."""
    name = f"entries[{row}]"
    if not isinstance(fields, dict):
        raise TableError(f"{name}: a row is an object; got {fields!r}; profile again")
    content = {key: value for key, value in fields.items() if key != "checksum"}
    name = f"{name} ({_describe(content)})"
    try:
        entry = Entry.model_validate(content)
    except ValidationError as error:
        raise TableError(f"{name}: {_first(error)}; profile again") from error
    digest = digest_of(content)[:ROW_DIGITS]
    if fields.get("checksum") != digest:
        raise TableError(
            f"{name}: the checksum of the row is {digest}; the file says {fields.get('checksum')!r}: "
            "the row was altered; profile again"
        )
    return entry, content


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
