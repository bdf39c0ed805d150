"""Reads CSV files of times that may come from anybody: lines, cells and numbers."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_FILE_BYTES = 64 * 2**20
_WHOLE = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")

Row = Mapping[str, str]
"""Texts of a line by column name."""


class SourceFileError(ValueError):
    """A file of times does not fit its mapping; the message names line and column."""


class CellError(ValueError):
    """A cell holds something else than the mapping says; the message names the column."""


def read_content(path: Path) -> bytes:
    """Read a file of at most `MAX_FILE_BYTES`.

    Raises:
        SourceFileError: It can't be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SourceFileError(f"{path}: can't be read: {error.strerror}; check path and rights") from error
    if len(content) > MAX_FILE_BYTES:
        raise SourceFileError(f"{path}: a file of times has at most {MAX_FILE_BYTES} bytes; got more; split it")
    return content


def read_rows(content: bytes, name: str) -> Iterator[tuple[int, Row]]:
    """Yield the lines of a CSV with their numbers, each as texts by column name.

    Args:
        content: The file, UTF-8, with column names in its first line.
        name: Its name, for messages.

    Raises:
        SourceFileError: It is no such CSV, or a line has other columns.
    """
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        columns = [column.strip() for column in next(reader, [])]
        repeated = sorted({column for column in columns if columns.count(column) > 1})
        if repeated:
            raise SourceFileError(f"{name}: every column has a name of its own; got {repeated} twice; rename one")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                raise SourceFileError(
                    f"{name}: line {reader.line_num}: every line has a cell for each of the {len(columns)} columns; "
                    f"got {len(cells)}; is the file whole, and comma-separated?"
                )
            yield reader.line_num, dict(zip(columns, (cell.strip() for cell in cells), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceFileError(f"{name}: a file of times is CSV in UTF-8; {error}; save it as that") from error


def read_number(row: Row, column: str) -> float:
    """Return the number in a cell, 0 or more.

    Raises:
        CellError: It holds anything else.
    """
    if not _NUMBER.fullmatch(row[column]):
        raise CellError(
            f"column {column!r}: a time is a plain decimal number, 0 or more, without its unit; got "
            f"{row[column][:40]!r}; correct the file, or leave the row out by `where`"
        )
    return float(row[column])


def read_whole(row: Row, column: str) -> int:
    """Return the whole number in a cell, 0 or more.

    Raises:
        CellError: It holds anything else.
    """
    if not _WHOLE.fullmatch(row[column]):
        raise CellError(
            f"column {column!r}: a size is a whole number; got {row[column][:40]!r}; correct the file, give `values`, "
            "or leave the row out by `where`"
        )
    return int(row[column])
