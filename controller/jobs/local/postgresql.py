"""A PostgreSQL server of one's own in a folder: made once, with a password that only its owner can read."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from controller.errors import UsageError
from controller.jobs.local.child import LOOPBACK, ServiceError, free_ports
from controller.jobs.local.commands import USER, own_secret, postgresql_program

_PASSFILE = "pgpass"


def prepare_postgresql(folder: Path) -> tuple[int, Path]:
    """Make the server's files on the first call.

    Returns:
        Its port, which stays the same, and the file that clients take the password from (PGPASSFILE).

    Raises:
        UsageError: PostgreSQL is not installed, or this is root, for whom it refuses to work.
    """
    if os.geteuid() == 0:
        raise UsageError(
            "PostgreSQL refuses to run as root; run serve-local as another user, or leave --postgresql out"
        )
    initdb = postgresql_program("initdb")
    passfile = folder / _PASSFILE
    entry = own_secret(passfile, [f"{LOOPBACK}:{free_ports(1)[0]}:*:{USER}:{{secret}}"])
    _, port, _, _, password = entry.strip().split(":")
    data = folder / "postgres"
    if not (data / "PG_VERSION").exists():
        once = folder / "initdb-password"
        try:
            own_secret(once, [password])
            _run([str(initdb), "-D", str(data), "-U", USER, "--auth=scram-sha-256", f"--pwfile={once}", "-E", "UTF8"])
        finally:
            once.unlink(missing_ok=True)
    return int(port), passfile


def create_database(port: int, passfile: Path) -> None:
    """Create the database, unless it is there."""
    found = [
        str(postgresql_program("psql")),
        "-h",
        LOOPBACK,
        "-p",
        str(port),
        "-U",
        USER,
        "-d",
        "postgres",
        "-w",
        "-At",
    ]
    environment = {**os.environ, "PGPASSFILE": str(passfile)}
    query = f"SELECT count(*) FROM pg_database WHERE datname = '{USER}'"  # noqa: S608
    if _run([*found, "-c", query], environment).strip() == "0":
        _run([*found, "-c", f"CREATE DATABASE {USER}"], environment)


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(list(command), env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ServiceError(f"{Path(command[0]).name} failed with code {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout
