"""What a signal to stop means for a command."""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from controller.cli.errors import stop
from controller.cli.exit_codes import ExitCode


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C: clusters and service managers send it, and the command is to end as tidily."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def resumable(kept: str) -> Iterator[None]:
    """End a command that is told to stop with what is kept, and with the same command as the one to go on.

    Args:
        kept: What is kept of the work, a clause.
    """
    try:
        with interrupted_by_sigterm():
            yield
    except KeyboardInterrupt:
        again = shlex.join(["paretrim", *sys.argv[1:]])
        stop(f"interrupted; {kept}", ExitCode.INTERRUPTED, remedy=f"to go on: {again}")
