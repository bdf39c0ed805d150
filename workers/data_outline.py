"""A look at the data that a job names which reads no more than it must, and finds only what certainly fails.

Reading rows properly takes libraries that are slow to import, and encoding them a tokenizer. `workers.trial.check_data`
does that, before a search begins with anything that takes long.
"""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

from evaluators.tasks import TASKS
from workers.data import DataConfig, DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_BY_LINES = (*_DELIMITERS, ".jsonl")


def check_data_outline(config: DataConfig, *, task: str) -> None:
    """Look at local files: whether they are there, name the columns, and have as many lines as rows are asked for.

    A hub's data sets are not looked at.

    Args:
        config: What is read, and how many rows of it.
        task: Name of a task, which tells whether rows have labels or pairs.

    Raises:
        DataError: A file is missing, empty, lacks a column, or has too few lines; or the task needs another column.
    """
    config.columns.needed(TASKS.get(task))
    wanted = {"search": config.search, "holdout": config.holdout}
    if config.calibration_source is None:
        wanted["calibration"] = config.calibration
    else:
        _check_file(config, config.calibration_source, task, {"calibration": config.calibration})
    _check_file(config, config.source, task, wanted)


def _check_file(config: DataConfig, source: str, task: str, wanted: dict[str, int]) -> None:
    path = Path(source)
    if not path.suffix or not (path.is_absolute() or path.exists()):
        return
    if not path.is_file():
        raise DataError(f"no file {source!r}; paths in a job are relative to the job file")
    if path.stat().st_size == 0:
        raise DataError(f"{source!r} is empty; a file of rows is needed")
    kind = path.suffix.lower()
    if kind in _DELIMITERS:
        _check_columns(config, path, task, _DELIMITERS[kind])
    if kind in _BY_LINES:
        total = sum(wanted.values()) + (kind in _DELIMITERS)
        lines = sum(1 for _ in itertools.islice(_filled_lines(path), total))
        if lines < total:
            asked = " + ".join(f"{count} {name}" for name, count in wanted.items())
            raise DataError(
                f"the splits need {sum(wanted.values())} different rows ({asked}); {source!r} has "
                f"{max(0, lines - (kind in _DELIMITERS))} at most; ask for fewer rows in data, or give more data"
            )


def _check_columns(config: DataConfig, path: Path, task: str, delimiter: str) -> None:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if delimiter == "\t":
                columns = file.readline().rstrip("\r\n").split(delimiter)
            else:
                columns = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error):
        return
    for column in config.columns.needed(TASKS.get(task)):
        if column not in columns:
            raise DataError(f"{str(path)!r} has no column {column!r}; it has {columns}; set data.columns")


def _filled_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())
