"""Reads a job file: YAML or JSON that may come from anybody, so without tags, aliases or guesses about types."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from controller.job import JobSpec, parse_job
from controller.problems import JobError, Location, show

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_ENTRIES = 20_000

_YAML_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"|~|null|Null|NULL")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(nan|NaN|NAN)")
_DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
_RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+[a-z]+)?:///)(?!/|:memory:|file:)([^?]+)(\?.*)?", re.DOTALL)
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


class _FileError(Exception):
    """What is wrong with the text of a job file, and where (line and column from 1)."""

    def __init__(self, message: str, mark: Any = None) -> None:
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        super().__init__(place + message)


class _PlainLoader(yaml.SafeLoader):
    """Composes YAML nodes within limits, and without anchors, aliases and tags."""

    depth = 0
    entries = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _FileError("a job file has no anchors (&) and aliases (*); write the value out", mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise _FileError(f"a job file has no tags; got {show(tag.replace(_YAML_TAG, '!!'))}; remove it", mark)
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise _FileError(f"a job file has at most {MAX_ENTRIES} entries; use globs for many units", mark)
        if self.depth >= MAX_DEPTH:
            raise _FileError(f"a job file is nested at most {MAX_DEPTH} deep; remove a level", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


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
    positions: dict[Location, tuple[int, int]] = {}
    try:
        text = _read_text(path)
        content = _from_json(text) if path.suffix.lower() == ".json" else _from_yaml(text, positions)
    except _FileError as error:
        raise JobError(show_path(path), [str(error)]) from None
    if isinstance(content, dict):
        _anchor_paths(content, path.absolute().parent)
    return parse_job(content, where=show_path(path), positions=positions)


def anchored(job: JobSpec, folder: Path) -> JobSpec:
    """Return a job with its relative paths taken from a folder, so that workers elsewhere find the same files."""
    content = job.model_dump(mode="json")
    _anchor_paths(content, folder)
    return JobSpec.model_validate_json(json.dumps(content))


def show_path(path: Path) -> str:
    """Return a path for a message: as given where it is printable, else escaped."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file" if path.exists() else "missing"
            raise _FileError(f"a job file is a file of text; this is {kind}; check the path")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _FileError(
            f"can't be read: {getattr(error, 'strerror', None) or error}; check path and rights"
        ) from error
    if len(raw) > MAX_BYTES:
        raise _FileError(f"a job file has at most {MAX_BYTES:,} bytes; got more; is this the right file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _FileError(
            f"line {line}: a job file is UTF-8; got byte 0x{raw[error.start]:02x}; save it as UTF-8"
        ) from None
    if (found := _FORBIDDEN.search(text)) is not None:
        line, column = text.count("\n", 0, found.start()) + 1, found.start() - text.rfind("\n", 0, found.start())
        raise _FileError(
            f"line {line}, column {column}: a job file is plain text; got the character {found[0]!a}; remove it"
        )
    if not text.strip():
        raise _FileError("a job file holds a job; this one is empty; `paretrim schema` says what it can hold")
    return text


def _from_yaml(text: str, positions: dict[Location, tuple[int, int]]) -> Any:
    loader = _PlainLoader(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise _FileError(f"not YAML: {what}", error.problem_mark or error.context_mark) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _FileError(f"not YAML: {error}") from error
    finally:
        loader.dispose()
    if node is None:
        raise _FileError("a job file holds a job; this one has comments only; `paretrim schema` says what it can hold")
    return _value(node, (), positions)


def _value(node: yaml.Node, location: Location, positions: dict[Location, tuple[int, int]]) -> Any:
    positions.setdefault(location, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, location, positions)
    if isinstance(node, yaml.SequenceNode):
        return [_value(entry, (*location, index), positions) for index, entry in enumerate(node.value)]
    return _scalar(node) if isinstance(node, yaml.ScalarNode) and node.style is None else node.value


def _mapping(node: yaml.MappingNode, location: Location, positions: dict[Location, tuple[int, int]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        mark = key_node.start_mark
        if not isinstance(key_node, yaml.ScalarNode):
            raise _FileError("a key is text; got a list or a mapping; write key: value", mark)
        key = key_node.value
        if key == "<<" and key_node.style is None:
            raise _FileError("a job file has no merge keys (<<); write the values out", mark)
        if key in found:
            line = positions[(*location, key)][0]
            raise _FileError(f"key {show(key)} occurs twice, first in line {line}; remove one", mark)
        positions[(*location, key)] = (mark.line + 1, mark.column + 1)
        found[key] = _value(value_node, (*location, key), positions)
    return found


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    """Read a plain scalar by the core schema of YAML 1.2: `on` is text, 1e-3 a number, and 010 is refused."""
    text = node.value
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return bool(_TRUE.fullmatch(text))
    if _LEADING_ZERO.fullmatch(text):
        raise _FileError(
            f"a number has no leading zero, as some readers take it for octal; got {show(text)}; "
            f'write {text.lstrip("+-0_") or "0"}, or "{text}" for text',
            node.start_mark,
        )
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if (found := _INFINITE.fullmatch(text)) is not None:
        return float("nan") if found[2] else float(found[1] + "inf")
    return str(text)


def _from_json(text: str) -> Any:
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise _FileError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except RecursionError:
        _refuse_depth()
    except ValueError as error:
        raise _FileError(f"not JSON: a number has too many digits ({error})") from error
    _check_depth(content, MAX_DEPTH)
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _FileError(f"key {show(key)} occurs twice; remove one")
        found[key] = value
    return found


def _check_depth(content: Any, left: int) -> None:
    if isinstance(content, (dict, list)):
        if left == 0:
            _refuse_depth()
        for value in content.values() if isinstance(content, dict) else content:
            _check_depth(value, left - 1)


def _refuse_depth() -> NoReturn:
    raise _FileError(f"a job file is nested at most {MAX_DEPTH} deep; remove a level")


def _anchor_paths(content: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute, in place. A wrong type is left for the check of the whole job."""
    for section, key in (("model", "id"), ("data", "source"), ("data", "calibration_source")):
        _replace(content.get(section), key, lambda text: _anchored_source(text, folder))
    _replace(content.get("target"), "table", lambda text: str(folder / text))
    _replace(content, "storage", lambda text: _anchored_sqlite(text, folder))
    _replace(content.get("mlflow"), "tracking_uri", lambda text: _anchored_sqlite(text, folder))


def _replace(part: Any, key: str, change: Callable[[str], str]) -> None:
    if isinstance(part, dict) and isinstance(part.get(key), str) and part[key]:
        part[key] = change(part[key])


def _anchored_source(text: str, folder: Path) -> str:
    """Anchor what is a path; "org/name" and "name" are hub ids unless the folder has them."""
    looks_like_path = text.startswith((".", "/")) or text.count("/") > 1 or text.lower().endswith(_DATA_SUFFIXES)
    return str(folder / text) if looks_like_path or os.path.lexists(folder / text.replace("\0", "")) else text


def _anchored_sqlite(url: str, folder: Path) -> str:
    found = _RELATIVE_SQLITE.fullmatch(url)
    return f"{found[1]}{folder / found[2]}{found[3] or ''}" if found is not None else url
