"""Reads a job file, and takes the relative paths in it from the folder that it lies in."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from controller.job import JobSpec, parse_job
from controller.job_origin import JobOrigin
from controller.plain_file import FileKind, PlainFileError, Positions, read_plain, show_path
from controller.problems import JobError
from evaluators.latency.shipped import is_shipped

_DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
_RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+[a-z]+)?:///)(?!/|:memory:|file:)([^?]+)(\?.*)?", re.DOTALL)
_JOB_FILE = FileKind(name="a job file", holds="a job", hint="`paretrim schema` says what it can hold")


def load_job(path: str | Path) -> JobSpec:
    """Read and check a job file.

    Relative paths in it (model, data, table, SQLite files) belong to the folder that it lies in. A model or data
    source that is not found there is taken as a hub id.

    Args:
        path: YAML, or JSON where the name ends in ".json"; UTF-8, at most 1 MB.

    Raises:
        JobError: The file can't be read, or the job is not valid; lists all problems with line and column.
    """
    path = Path(path)
    content, positions = _read(path)
    if isinstance(content, dict):
        _anchor_paths(content, path.absolute().parent)
    job = parse_job(content, where=show_path(path), positions=positions)
    return job.of(JobOrigin(file=path, model=job.model, target=job.target, positions=positions))


def relative_paths(path: str | Path) -> dict[str, str]:
    """Return the relative paths in a job file by their keys ("model.id"), those of hub ids left out.

    Raises:
        JobError: The file can't be read.
    """
    path = Path(path)
    written, moved = _read(path)[0], _read(path)[0]
    if not isinstance(moved, dict):
        return {}
    _anchor_paths(moved, path.absolute().parent)
    return dict(_changed(written, moved))


def _changed(written: Any, moved: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(written, str) and written != moved:
        yield place, written
    elif isinstance(written, (dict, list)):
        for key, value in written.items() if isinstance(written, dict) else enumerate(written):
            yield from _changed(value, moved[key], f"{place}.{key}" if place else str(key))


def _read(path: Path) -> tuple[Any, Positions]:
    try:
        return read_plain(path, _JOB_FILE)
    except PlainFileError as error:
        raise JobError(show_path(path), [str(error)]) from None


def anchored(job: JobSpec, folder: Path) -> JobSpec:
    """Return a job with its relative paths taken from a folder, so that workers elsewhere find the same files."""
    content = job.model_dump(mode="json")
    _anchor_paths(content, folder)
    return JobSpec.model_validate_json(json.dumps(content)).of(job.origin)


def _anchor_paths(content: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute, in place. A wrong type is left for the check of the whole job."""
    for section, key in (
        ("model", "id"),
        ("data", "source"),
        ("data", "calibration_source"),
        ("recovery", "source"),
    ):
        _replace(content.get(section), key, lambda text: _anchored_source(text, folder))
    also = content.get("also")
    for target in (content.get("target"), *(also if isinstance(also, list) else ())):
        _replace(target, "table", lambda text: text if is_shipped(text) else str(folder / text))
    _replace(content, "storage", lambda text: anchored_sqlite(text, folder))
    _replace(content.get("mlflow"), "tracking_uri", lambda text: anchored_sqlite(text, folder))


def _replace(part: Any, key: str, change: Callable[[str], str]) -> None:
    if isinstance(part, dict) and isinstance(part.get(key), str) and part[key]:
        part[key] = change(part[key])


def _anchored_source(text: str, folder: Path) -> str:
    """Anchor what is a path; "org/name" and "name" are hub ids unless the folder has them."""
    looks_like_path = text.startswith((".", "/")) or text.count("/") > 1 or text.lower().endswith(_DATA_SUFFIXES)
    return str(folder / text) if looks_like_path or os.path.lexists(folder / text.replace("\0", "")) else text


def anchored_sqlite(url: str, folder: Path) -> str:
    """Return the URL of a database; the file of a relative SQLite one is taken from the folder."""
    found = _RELATIVE_SQLITE.fullmatch(url)
    return f"{found[1]}{folder / found[2]}{found[3] or ''}" if found is not None else url
