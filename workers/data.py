"""The data that a job names: rows from files or a hub, split into calibration, search and holdout."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evaluators.tasks.base import Example, Task, TaskError, reads_pairs
from workers.quiet import no_progress_bars

_BUILDERS: dict[str, tuple[str, dict[str, Any]]] = {
    # A text such as "null" is no missing value, and in tab-separated files a quotation mark is a character like others.
    ".csv": ("csv", {"keep_default_na": False}),
    ".tsv": ("csv", {"keep_default_na": False, "delimiter": "\t", "quoting": 3}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {}),
}


def names_file(source: str) -> bool:
    """Whether a source is a file by its name, and no hub id."""
    return Path(source).suffix.lower() in _BUILDERS


class DataError(ValueError):
    """The data can't be read, or does not suffice."""


class Columns(BaseModel):
    """Which columns hold what."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    input: str = "text"
    """Text, or image (path, bytes or nested list of pixels)."""
    pair: str | None = None
    """The second text of a task that compares two; other tasks have none."""
    label: str = "label"
    """Integer class, or the class's name as the model knows it; or the text that is asked for; or how alike two texts
    are, a number. A causal language model needs none."""

    def needed(self, task: Task | type[Task]) -> list[str]:
        """Names of the columns that a task reads, the label last.

        Raises:
            DataError: The task compares two texts and there is no second one, or the other way round.
        """
        if reads_pairs(task) != (self.pair is not None):
            wanted = "compares two texts, the second of which stands in" if self.pair is None else "has no use for"
            raise DataError(
                f"the task {wanted} data.columns.pair; got {self.pair!r}; "
                f"{'name the column' if self.pair is None else 'leave it out'}"
            )
        return [self.input, *([self.pair] if self.pair else []), *([self.label] if task.labelled else [])]


class DataConfig(BaseModel):
    """Examples, and how many go to each split. Splits never share a row."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str = Field(min_length=1)
    """Local csv, tsv, jsonl, parquet or text file, or a hub id ("org/name")."""
    config: str | None = None
    """Configuration of a hub data set."""
    hub_split: str = "train"
    """Split of a hub data set that rows are taken from."""
    revision: str | None = None
    """Commit of a hub data set."""
    columns: Columns = Columns()
    """Names of the columns."""
    calibration_source: str | None = None
    """Another source for the calibration examples, of the same kind and columns."""
    calibration: int = Field(default=128, ge=1)
    """Examples that compression looks at."""
    search: int = Field(default=512, ge=1)
    """Examples that trials are scored on."""
    holdout: int = Field(default=512, ge=1)
    """Examples that only the finished front and the artifact are scored on."""
    max_length: int = Field(default=128, ge=2)
    """Longest input in tokens; longer ones are cut. A causal language model reads a text file in windows of so many."""
    shuffle: bool = True
    """Whether rows are drawn at random (seeded) or in the file's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Encoded examples of the three disjoint splits."""

    calibration: tuple[Example, ...]
    search: tuple[Example, ...]
    holdout: tuple[Example, ...]
    digest: str
    """Digest of inputs and labels of all splits, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    input: Any
    label: Any
    digest: str


def load_splits(config: DataConfig, task: Task, *, seed: int) -> Splits:
    """Read, split and encode the data.

    A row that occurs twice is taken once, so that no split holds what another one has seen.

    Raises:
        DataError: A file or column is missing, or there are fewer rows than the splits ask for.
        TaskError: An input or label does not fit the model.
    """
    calibration, search, holdout = _split(config, task, seed)
    parts = (calibration, search, holdout)
    content = [[(row.digest, str(row.label)) for row in part] for part in parts]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    encoded = [_encode(part, name, config, task) for part, name in zip(parts, Splits.__slots__, strict=False)]
    return Splits(calibration=encoded[0], search=encoded[1], holdout=encoded[2], digest=digest)


def load_training(
    config: DataConfig, task: Task, *, source: str, examples: int | None, seed: int
) -> tuple[Example, ...]:
    """Read examples to train on: rows of another source that are in none of the splits that models are scored on.

    Args:
        config: Says how rows are read, and which are in the splits.
        task: Encodes them.
        source: File or hub id with the same columns.
        examples: Most examples, drawn at random; None for all.
        seed: Seed of the splits.

    Raises:
        DataError: A file or column is missing, or no row is left.
        TaskError: An input or label does not fit the model.
    """
    _, search, holdout = _split(config, task, seed)
    taken = {row.digest for row in (*search, *holdout)}
    rows = [row for row in _unique(_read_rows(config, source, task)) if row.digest not in taken]
    if not rows:
        raise DataError(f"training takes rows that no split scores; {source!r} has none; name another recovery.source")
    if examples is not None and examples < len(rows):
        rows = random.Random(seed).sample(rows, examples)
    return _encode(rows, "training", config.model_copy(update={"source": source}), task)


def load_rows(config: DataConfig, task: Task, *, examples: int | None, seed: int) -> tuple[Example, ...]:
    """Read all different rows of a source as one split, whatever the numbers of rows in the configuration say.

    Args:
        config: Says how rows are read.
        task: Encodes them.
        examples: Most examples, drawn at random; None for all.
        seed: Seed of the draw.

    Raises:
        DataError: A file or column is missing, or there is no row.
        TaskError: An input or label does not fit the model.
    """
    rows = _unique(_read_rows(config, config.source, task))
    if not rows:
        raise DataError(f"scoring takes at least one row; {config.source!r} has none; give a file with rows")
    if examples is not None and examples < len(rows):
        rows = random.Random(seed).sample(rows, examples)
    return _encode(rows, "new", config, task)


def count_rows(config: DataConfig, task: Task) -> int:
    """Count the different rows of a source.

    Raises:
        DataError: A file or column is missing.
    """
    return len(_unique(_read_rows(config, config.source, task)))


def _split(config: DataConfig, task: Task, seed: int) -> tuple[list[_Row], list[_Row], list[_Row]]:
    """Rows of calibration, search and holdout."""
    rows = _unique(_read_rows(config, config.source, task))
    if config.shuffle:
        random.Random(seed).shuffle(rows)
    if config.calibration_source is None:
        wanted = {"calibration": config.calibration, "search": config.search, "holdout": config.holdout}
        calibration, search, holdout = _cut(rows, wanted, config.source)
    else:
        search, holdout = _cut(rows, {"search": config.search, "holdout": config.holdout}, config.source)
        taken = {row.digest for row in (*search, *holdout)}
        others = [r for r in _unique(_read_rows(config, config.calibration_source, task)) if r.digest not in taken]
        if config.shuffle:
            random.Random(seed).shuffle(others)
        (calibration,) = _cut(others, {"calibration": config.calibration}, config.calibration_source)
    return calibration, search, holdout


def _encode(rows: list[_Row], split: str, config: DataConfig, task: Task) -> tuple[Example, ...]:
    try:
        return tuple(task.encode([r.input for r in rows], [r.label for r in rows], max_length=config.max_length))
    except TaskError as error:
        raise TaskError(f"{split} split of {config.source!r}: {error}") from error


def _cut(rows: list[_Row], wanted: Mapping[str, int], source: str) -> list[list[_Row]]:
    total = sum(wanted.values())
    if len(rows) < total:
        asked = " + ".join(f"{count} {name}" for name, count in wanted.items())
        raise DataError(
            f"the splits need {total} different rows ({asked}); {source!r} has {len(rows)}; "
            "ask for fewer rows in data, or give more data"
        )
    parts, start = [], 0
    for count in wanted.values():
        parts.append(rows[start : start + count])
        start += count
    return parts


def _read_rows(config: DataConfig, source: str, task: Task) -> Iterable[_Row]:
    windows = _windows(config, source, task)
    if windows is not None:
        yield from (_Row(input=window, label=None, digest=_digest(window)) for window in windows)
        return
    dataset = _open(config, source)
    columns = list(dataset.column_names)
    for column in config.columns.needed(task):
        if column not in columns:
            raise DataError(f"{source!r} has no column {column!r}; it has {columns}; set data.columns")
    for row in dataset:
        value, pair = row[config.columns.input], config.columns.pair
        value = value if pair is None else [value, row[pair]]
        label = row[config.columns.label] if task.labelled else None
        yield _Row(input=value, label=label, digest=_digest(value))


def _windows(config: DataConfig, source: str, task: Task) -> Sequence[Any] | None:
    """Inputs of a task that cuts a text file as it stands; None for other files and tasks."""
    path = Path(source)
    if path.suffix.lower() != ".txt" or task.cut("", max_length=config.max_length) is None:
        return None
    if not path.is_file():
        raise DataError(f"no file {source!r}; paths in a job are relative to the job file")
    try:
        return task.cut(path.read_bytes().decode(), max_length=config.max_length)
    except UnicodeDecodeError as error:
        raise DataError(f"{source!r} can't be read as text: {error}; save it as UTF-8") from error


def _open(config: DataConfig, source: str) -> Any:
    import datasets
    from datasets.exceptions import DatasetGenerationError

    path = Path(source)
    if names_file(source):
        if not path.is_file():
            raise DataError(f"no file {source!r}; paths in a job are relative to the job file")
        if path.stat().st_size == 0:
            raise DataError(f"{source!r} is empty; a file of rows is needed")
        builder, options = _BUILDERS[path.suffix.lower()]
        arguments: dict[str, Any] = {"path": builder, "data_files": str(path), "split": "train", **options}
    elif path.exists() or path.is_absolute() or source.startswith(".") or source.count("/") > 1:
        raise DataError(f"{source!r} is no file that can be read; give one that ends in {', '.join(_BUILDERS)}")
    else:
        arguments = {
            "path": source,
            "name": config.config,
            "split": config.hub_split,
            "revision": config.revision,
        }
    try:
        with no_progress_bars():
            return datasets.load_dataset(**arguments)
    except (OSError, ValueError, DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise DataError(f"{source!r} can't be read as rows: {cause}") from error


def _unique(rows: Iterable[_Row]) -> list[_Row]:
    return list({row.digest: row for row in rows}.values())


def _digest(value: Any) -> str:
    if isinstance(value, bytes):
        data = value
    elif hasattr(value, "tobytes"):
        data = value.tobytes()
    else:
        data = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(data).hexdigest()
