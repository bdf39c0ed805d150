"""Latency tables that come with the package, by name."""

from __future__ import annotations

import re
from pathlib import Path

PREFIX = "shipped:"
FOLDER = Path(__file__).parent / "tables"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class ShippedTableError(ValueError):
    """No table of that name comes with the package, or it was to be written."""


def shipped_names() -> tuple[str, ...]:
    """Return the names of the tables that come with the package, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json") if _NAME.fullmatch(path.stem)))


def is_shipped(path: Path | str) -> bool:
    """Whether a path names a table of the package ("shipped:NAME")."""
    return str(path).startswith(PREFIX)


def table_file(path: Path | str) -> Path:
    """Return the file of a table.

    Args:
        path: A path, or "shipped:NAME".

    Raises:
        ShippedTableError: No such table comes with the package.
    """
    if not is_shipped(path):
        return Path(path)
    name = str(path).removeprefix(PREFIX)
    if name not in shipped_names():
        known = ", ".join(shipped_names()) or "none"
        raise ShippedTableError(
            f"{PREFIX}NAME is a table that comes with Paretrim; got {name[:80]!r}; `paretrim table list` has "
            f"the names: {known}"
        )
    return FOLDER / f"{name}.json"


def is_of_package(path: Path) -> bool:
    """Whether a path leads to where the tables of the package lie, by name or by folder."""
    return is_shipped(path) or FOLDER.resolve() in path.resolve().parents


def check_writable(path: Path) -> None:
    """Refuse to write to a table of the package, or beside them.

    Raises:
        ShippedTableError: The path is there.
    """
    if is_of_package(path):
        raise ShippedTableError(
            f"tables that come with Paretrim stay as they are; got {str(path)!r} to write to; name a file of your own, "
            "or copy the table first (`paretrim table list` has its file)"
        )
