"""Folders of whole files, local or behind any URL that fsspec opens, for a store that several processes share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

_UNFINISHED = ".writing-"
_UNFINISHED_SECONDS = 3600.0
"""A file that nobody finished writing in this time belongs to a process that was ended."""
_USED = ".used-"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """One file of a store.

    Attributes:
        name: File name, without the folder.
        size_bytes: Its size.
        used_at: When it was last read or written, seconds since 1970.
    """

    name: str
    size_bytes: int
    used_at: float


class EntryFolder(Protocol):
    """Where entries lie: whole files by name."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a file and None where there is none; the file then counts as just used."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file so that readers see all of it or nothing."""
        ...

    def remove(self, names: Collection[str]) -> None:
        """Remove files, some of which may be gone already."""
        ...

    def entries(self) -> list[StoredEntry]:
        """All entries, and none that is still being written."""
        ...


def open_folder(location: Path | str) -> EntryFolder:
    """The folder at a path or URL."""
    if isinstance(location, Path) or "://" not in location:
        return LocalFolder(Path(location))
    if location.startswith("file://"):
        return LocalFolder(Path(location.removeprefix("file://")))
    return UrlFolder(location)


class LocalFolder:
    """A folder of the file system, also one that several nodes mount. Reading a file sets its modification time.

    Args:
        path: Made where it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        for unfinished in path.glob(f"{_UNFINISHED}*"):
            _remove_if_older(unfinished, time.time() - _UNFINISHED_SECONDS)

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self._path / name).exists()

    def read(self, name: str) -> bytes | None:
        """The content of a file and None where there is none; the file then counts as just used."""
        path = self._path / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        with suppress(OSError):  # A folder that may only be read drops nothing, so that nothing is lost.
            os.utime(path)
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write beside the file's place and rename."""
        handle, temporary = tempfile.mkstemp(dir=self._path, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(self._path / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def remove(self, names: Collection[str]) -> None:
        """Remove files, some of which may be gone already."""
        for name in names:
            (self._path / name).unlink(missing_ok=True)

    def entries(self) -> list[StoredEntry]:
        """All entries, and none that is still being written."""
        found = []
        for path in self._path.iterdir():
            if path.name.startswith(_UNFINISHED):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append(StoredEntry(name=path.name, size_bytes=status.st_size, used_at=status.st_mtime))
        return found


def _remove_if_older(path: Path, time_s: float) -> None:
    try:
        if path.stat().st_mtime < time_s:
            path.unlink()
    except FileNotFoundError:
        return


class UrlFolder:
    """A folder behind a URL. Object stores put objects whole; where a file can be seen half written, readers check.

    Objects have no time of last use. An empty object beside each one bears it in its name, in whole steps, so that a
    listing alone tells the order and a step costs one write.

    Args:
        url: Anything that fsspec opens.
        step_seconds: Resolution of the time of last use.
        clock: Seconds since 1970.
    """

    def __init__(self, url: str, *, step_seconds: float = 3600.0, clock: Callable[[], float] = time.time) -> None:
        import fsspec

        found: tuple[Any, str] = fsspec.url_to_fs(url, use_listings_cache=False)
        self._files, self._root = found[0], found[1].rstrip("/")
        self._step_seconds, self._clock = step_seconds, clock
        self._noted: dict[str, int] = {}

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return bool(self._files.exists(f"{self._root}/{name}"))

    def read(self, name: str) -> bytes | None:
        """The content of a file and None where there is none; the file then counts as just used."""
        try:
            data: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        with suppress(PermissionError):  # Who may only read drops nothing either.
            self._note_use(name)
        return data

    def write(self, name: str, data: bytes) -> None:
        """Put a file whole."""
        self._put(name, data)
        self._note_use(name)

    def remove(self, names: Collection[str]) -> None:
        """Remove files, some of which may be gone already, and their times of use."""
        for name in self._names():
            if name.partition(_USED)[0] in names:
                self._remove(name)
        for name in names:
            self._noted.pop(name, None)

    def entries(self) -> list[StoredEntry]:
        """All entries, without the objects that note their use."""
        sizes = self._names()
        used: dict[str, int] = {}
        for name in sizes:
            entry, mark, step = name.partition(_USED)
            if mark:
                used[entry] = max(used.get(entry, 0), int(step))
        return [
            StoredEntry(name=name, size_bytes=size, used_at=used.get(name, 0) * self._step_seconds)
            for name, size in sizes.items()
            if _USED not in name
        ]

    def _note_use(self, name: str) -> None:
        step, noted = int(self._clock() / self._step_seconds), self._noted.get(name)
        if noted == step:
            return
        self._put(f"{name}{_USED}{step}", b"")
        if noted is not None:
            self._remove(f"{name}{_USED}{noted}")
        self._noted[name] = step

    def _names(self) -> dict[str, int]:
        """Sizes by name of all that lies directly in the folder."""
        try:
            listed = self._files.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {item["name"].rpartition("/")[2]: int(item["size"]) for item in listed if item["type"] == "file"}

    def _put(self, name: str, data: bytes) -> None:
        try:
            self._files.pipe_file(f"{self._root}/{name}", data)
        except FileNotFoundError:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(f"{self._root}/{name}", data)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")
