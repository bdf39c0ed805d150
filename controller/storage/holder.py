"""Who holds a study: the process of a controller, and whether it is still there."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process of a controller.

    Attributes:
        host: Name of its machine, for people.
        place: Identity of what its number is unique in: the machine since it was started, and its space of numbers.
        pid: Number of the process.
        born: When the process began, in ticks since the machine started; None where the system does not say. A number
            that is given out again belongs to another process.
    """

    host: str
    place: str
    pid: int
    born: int | None

    @classmethod
    def current(cls) -> Self:
        """Return this process."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), place=_place(), pid=pid, born=_born(pid))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Write the holder as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @property
    def is_near(self) -> bool:
        """Whether it runs where this process does, so that it is known whether it is still there."""
        return self.place == _place()

    def is_gone(self) -> bool:
        """Whether the process is known to have ended; of one elsewhere nothing is known."""
        if not self.is_near:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _is_zombie(self.pid) or (self.born is not None and _born(self.pid) != self.born)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _place() -> str:
    """Containers of one machine share its name or its boot, but never both of boot and numbers of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _stat(pid: int) -> list[str]:
    """Fields of a process behind its name, the state first; none where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _born(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] == ["Z"]
