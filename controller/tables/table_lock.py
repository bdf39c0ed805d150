"""One process at a time measures a table: a lock beside its file, which the system frees when the process ends."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from controller.errors import HeldError, PreflightError

POLL_S = 0.5
"""Seconds between two looks at a lock that another process holds."""


def lock_file(table: Path) -> Path:
    """Return the file that is locked while a table is measured; it is gone when nobody measures."""
    return table.parent.resolve() / f".{table.name}.lock"


@contextlib.contextmanager
def measuring_alone(table: Path, *, waits: bool, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Keep a table to this process while the block measures it: others would overwrite rows and disturb times.

    Args:
        table: File of the table, in a folder that exists.
        waits: Wait for another process that measures it; else refuse.
        on_wait: Told while it waits, in words.

    Raises:
        HeldError: Another process measures it, and `waits` is false.
        PreflightError: No lock can be had in the folder.
    """
    import filelock

    path = lock_file(table)
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except filelock.Timeout as error:
            if not waits:
                raise HeldError(
                    f"a table is measured by one process at a time; {_holder(path)} measures {table} now; wait until "
                    "it is done, stop it, or name another file"
                ) from error
            on_wait(f"waiting for {_holder(path)}, which measures {table}")
            time.sleep(POLL_S)
        except OSError as error:
            raise PreflightError(
                f"a table is locked while it is measured; {str(path)!r} can't be locked ({error.strerror}); name "
                "a file in another folder"
            ) from error
    try:
        _sign(path)
        yield
    finally:
        # Still locked: who has opened the file meanwhile finds it gone, and makes another.
        path.unlink(missing_ok=True)
        lock.release()


def _sign(path: Path) -> None:
    """Say in the locked file who holds it."""
    began = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    path.write_text(json.dumps({"process": os.getpid(), "host": platform.node(), "began": began}), encoding="utf-8")


def _holder(path: Path) -> str:
    """Who holds a lock, in words."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        where = "" if said["host"] == platform.node() else f" on {said['host']}"
        return f"process {int(said['process'])}{where} (since {said['began']})"
    except (OSError, ValueError, KeyError, TypeError):
        # It has just begun or ended, or can't be read while it is locked.
        return "another process"
