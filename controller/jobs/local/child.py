"""A service as a child process: started with a log of its own, watched, and ended with all that it started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_POLL_S = 0.2
_TAIL = 1500
LOOPBACK = "127.0.0.1"


class ServiceError(RuntimeError):
    """A service does not start, or has ended by itself."""


class Child:
    """A running service.

    Args:
        name: For people.
        command: Program and arguments. Others on the machine can see them: no secrets.
        environment: All its variables.
        log: File for what it prints.
    """

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C in this terminal goes to us, and we end the services in order.
            self._process = subprocess.Popen(  # noqa: S603
                list(command), env=dict(environment), stdout=output, stderr=output, start_new_session=True
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until the service is ready.

        Raises:
            ServiceError: It ends before that, or takes too long; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} is not ready after {timeout_s:g} s; {self._last_words()}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            ServiceError: It has ended.
        """
        if not self.is_running:
            raise ServiceError(f"{self.name} has ended with code {self._process.returncode}; {self._last_words()}")

    def end(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 30.0) -> None:
        """End it, by force where it takes too long."""
        if self.is_running:
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_words(self) -> str:
        text = self._log.read_bytes()[-_TAIL:].decode("utf-8", "replace").strip()
        return f"the end of {self._log} says:\n{text}" if text else f"{self._log} is empty"


def is_listening(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
