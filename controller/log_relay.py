"""Brings the log lines of the study's process to the controller's stderr, where a job's log is taken from."""

import logging
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from controller.log_lines import JsonLines, log_as_json, wants_json

_POLL_S = 0.5


@contextmanager
def relayed_log() -> Iterator[Path | None]:
    """Log as JSON lines while the block runs, where PARETRIM_LOG asks for it.

    Yields:
        File that a process on this node may write lines to (see `write_log_to`); None where nobody asks.
    """
    if not wants_json():
        yield None
        return
    log_as_json()
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="paretrim-log-") as folder:
        path = Path(folder, "study.jsonl")
        path.touch(mode=0o600)
        with path.open(encoding="utf-8") as lines:
            relay = threading.Thread(target=_copy, args=(lines, ended), daemon=True)
            relay.start()
            try:
                yield path
            finally:
                ended.set()
                relay.join()


def write_log_to(path: Path) -> None:
    """Send what this process logs to a file as JSON lines.

    Args:
        path: From `relayed_log` of the controller.
    """
    logger = logging.getLogger("controller")
    if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _copy(lines: TextIO, ended: threading.Event) -> None:
    rest = ""
    last = False
    while not last:
        last = ended.wait(_POLL_S)
        *whole, rest = (rest + lines.read()).split("\n")
        for line in whole:
            sys.stderr.write(line + "\n")
        if whole:
            sys.stderr.flush()
