"""Reads YAML or JSON that may come from anybody: without tags, aliases or guesses about types, and within limits."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from controller.problems import Location, show

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
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

Positions = dict[Location, tuple[int, int]]
"""Line and column, from 1, of what a file holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """What a file is called in messages.

    Attributes:
        name: The kind of file ("a job file").
        holds: What it holds ("a job").
        hint: Where to learn what it can hold.
    """

    name: str
    holds: str
    hint: str


class PlainFileError(Exception):
    """What is wrong with the text of a file, and where (line and column from 1)."""

    def __init__(self, message: str, mark: Any = None) -> None:
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        super().__init__(place + message)


def read_plain(path: Path, kind: FileKind) -> tuple[Any, Positions]:
    """Read a file of plain values.

    Args:
        path: YAML, or JSON where the name ends in ".json"; UTF-8, at most 1 MB.
        kind: What it is called in messages.

    Returns:
        Nested dictionaries, lists, texts, numbers and booleans, and where each stands in a YAML file.

    Raises:
        PlainFileError: The file can't be read, or holds more than plain values.
    """
    text = _read_text(path, kind)
    if path.suffix.lower() == ".json":
        return _from_json(text, kind), {}
    positions: Positions = {}
    return _from_yaml(text, kind, positions), positions


def show_path(path: Path) -> str:
    """Return a path for a message: as given where it is printable, else escaped."""
    return str(path) if str(path).isprintable() else ascii(str(path))


class _PlainLoader(yaml.SafeLoader):
    """Composes YAML nodes within limits, and without anchors, aliases and tags."""

    depth = 0
    entries = 0

    def __init__(self, text: str, kind: FileKind) -> None:
        super().__init__(text)
        self.kind = kind

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise PlainFileError(f"{self.kind.name} has no anchors (&) and aliases (*); write the value out", mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise PlainFileError(
                f"{self.kind.name} has no tags; got {show(tag.replace(_YAML_TAG, '!!'))}; remove it", mark
            )
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise PlainFileError(f"{self.kind.name} has at most {MAX_ENTRIES} entries; is this the right file?", mark)
        if self.depth >= MAX_DEPTH:
            raise PlainFileError(f"{self.kind.name} is nested at most {MAX_DEPTH} deep; remove a level", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _read_text(path: Path, kind: FileKind) -> str:
    try:
        if not path.is_file():
            if not path.exists():
                raise PlainFileError("there is no such file; check the path")
            what = "a folder" if path.is_dir() else "no regular file"
            raise PlainFileError(f"{kind.name} is a file of text; this is {what}; check the path")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PlainFileError(
            f"can't be read: {getattr(error, 'strerror', None) or error}; check path and rights"
        ) from error
    if len(raw) > MAX_BYTES:
        raise PlainFileError(f"{kind.name} has at most {MAX_BYTES:,} bytes; got more; is this the right file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PlainFileError(
            f"line {line}: {kind.name} is UTF-8; got byte 0x{raw[error.start]:02x}; save it as UTF-8"
        ) from None
    if (found := _FORBIDDEN.search(text)) is not None:
        line, column = text.count("\n", 0, found.start()) + 1, found.start() - text.rfind("\n", 0, found.start())
        raise PlainFileError(
            f"line {line}, column {column}: {kind.name} is plain text; got the character {found[0]!a}; remove it"
        )
    if not text.strip():
        raise PlainFileError(f"{kind.name} holds {kind.holds}; this one is empty; {kind.hint}")
    return text


def _from_yaml(text: str, kind: FileKind, positions: Positions) -> Any:
    loader = _PlainLoader(text, kind)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise PlainFileError(f"not YAML: {what}", error.problem_mark or error.context_mark) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise PlainFileError(f"not YAML: {error}") from error
    finally:
        loader.dispose()
    if node is None:
        raise PlainFileError(f"{kind.name} holds {kind.holds}; this one has comments only; {kind.hint}")
    return _value(node, (), kind, positions)


def _value(node: yaml.Node, location: Location, kind: FileKind, positions: Positions) -> Any:
    positions.setdefault(location, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, location, kind, positions)
    if isinstance(node, yaml.SequenceNode):
        return [_value(entry, (*location, index), kind, positions) for index, entry in enumerate(node.value)]
    return _scalar(node) if isinstance(node, yaml.ScalarNode) and node.style is None else node.value


def _mapping(node: yaml.MappingNode, location: Location, kind: FileKind, positions: Positions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        mark = key_node.start_mark
        if not isinstance(key_node, yaml.ScalarNode):
            raise PlainFileError("a key is text; got a list or a mapping; write key: value", mark)
        key = key_node.value
        if key == "<<" and key_node.style is None:
            raise PlainFileError(f"{kind.name} has no merge keys (<<); write the values out", mark)
        if key in found:
            line = positions[(*location, key)][0]
            raise PlainFileError(f"key {show(key)} occurs twice, first in line {line}; remove one", mark)
        positions[(*location, key)] = (mark.line + 1, mark.column + 1)
        found[key] = _value(value_node, (*location, key), kind, positions)
    return found


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    """Read a plain scalar by the core schema of YAML 1.2: `on` is text, 1e-3 a number, and 010 is refused."""
    text = node.value
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return bool(_TRUE.fullmatch(text))
    if _LEADING_ZERO.fullmatch(text):
        raise PlainFileError(
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


def _from_json(text: str, kind: FileKind) -> Any:
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise PlainFileError(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except RecursionError:
        _refuse_depth(kind)
    except ValueError as error:
        raise PlainFileError(f"not JSON: a number has too many digits ({error})") from error
    _check_depth(content, MAX_DEPTH, kind)
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise PlainFileError(f"key {show(key)} occurs twice; remove one")
        found[key] = value
    return found


def _check_depth(content: Any, left: int, kind: FileKind) -> None:
    if isinstance(content, (dict, list)):
        if left == 0:
            _refuse_depth(kind)
        for value in content.values() if isinstance(content, dict) else content:
            _check_depth(value, left - 1, kind)


def _refuse_depth(kind: FileKind) -> NoReturn:
    raise PlainFileError(f"{kind.name} is nested at most {MAX_DEPTH} deep; remove a level")
