"""A PostgreSQL server of its own, for benchmarks and tests: real programs, a throw-away folder, loopback only."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

_START_S = 60.0


def find_binaries() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs; None where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)
    found = next((folder for folder in folders if (folder / "initdb").exists()), None)
    if found is None and (on_path := shutil.which("initdb")):
        found = Path(on_path).parent
    return found


class PostgresServer:
    """One server; it can be stopped, killed and started again on the same port.

    Args:
        folder: A folder that exists, and above which anybody may look.
        fsync: Whether commits reach the disk; without it a crash of the machine loses them, one of the server does not.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise FileNotFoundError("no initdb in /usr/lib/postgresql/*/bin or PATH; install the package postgresql")
        self._binaries = binaries
        self._data = folder / "data"
        self._log = folder / "log"
        self._fsync = fsync
        self._user = _unprivileged()
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._run("initdb", "--pgdata", str(self._data), "--auth=trust", "--username=paretrim", "--no-sync")
        self._server: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        """Address of a database."""
        return f"postgresql://paretrim@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
            "max_connections": "50",
            "shared_buffers": "32MB",
        }
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        ready = [str(self._binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            # After a kill the old server's children hold its folder for a moment longer.
            if self._server is None or self._server.poll() is not None:
                with self._log.open("ab") as log:
                    self._server = subprocess.Popen(
                        command, stdout=log, stderr=log, cwd="/", start_new_session=True, **self._identity()
                    )
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT at once but in order, SIGKILL in the middle of whatever it does."""
        if self._server is None:
            return
        self._server.send_signal(number)
        self._server.wait(60)
        self._server = None

    def create_database(self, name: str) -> str:
        """Create an empty database and return its address."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "paretrim", name)
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", **self._identity())
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr[-2000:]}")

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _unprivileged() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: return who else runs it; None for whoever runs this."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL must not run as root, and there is no user postgres or nobody")
