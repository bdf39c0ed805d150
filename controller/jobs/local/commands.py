"""How each service is started: the command, the variables, and what they keep to loopback and off."""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.errors import UsageError
from controller.jobs.local.child import LOOPBACK

OBJECT_STORE_BYTES = 256 * 1024 * 1024
_BIN = Path(sys.executable).parent
_POSTGRESQL = ("/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/pgsql")
USER = "paretrim"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayPorts:
    """Ports of the Ray head.

    Attributes:
        dashboard: Jobs and dashboard.
        metrics: Metrics for Prometheus.
        head: What nodes and drivers connect to.
        agent: Of the node's agent.
        client: Of the Ray client, which nobody uses here.
    """

    dashboard: int
    metrics: int
    head: int
    agent: int
    client: int


def ray_command(ports: RayPorts, session: Path, *, cpus: int, gpus: int | None) -> list[str]:
    """Return the command of a Ray head that listens on loopback only and stays in the foreground.

    Args:
        ports: Where it listens.
        session: Folder of its own, with a short path: jobs of two heads that share one may join the wrong head.
        cpus: CPU cores that jobs share.
        gpus: GPUs that jobs share; None takes what Ray finds.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", LOOPBACK, "--dashboard-host", LOOPBACK, "--include-dashboard", "true"]
    command += ["--dashboard-port", str(ports.dashboard), "--port", str(ports.head)]
    command += ["--metrics-export-port", str(ports.metrics), "--dashboard-agent-listen-port", str(ports.agent)]
    command += ["--ray-client-server-port", str(ports.client), "--temp-dir", str(session)]
    command += ["--num-cpus", str(cpus), "--object-store-memory", str(OBJECT_STORE_BYTES), "--log-color", "false"]
    return command if gpus is None else [*command, "--num-gpus", str(gpus)]


def mlflow_command(folder: Path, port: int) -> list[str]:
    """Return the command of an MLflow server that answers under its own names only."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", f"{LOOPBACK}:{port},localhost:{port}"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    return [*command, "--artifacts-destination", str(folder / "mlartifacts")]


def postgres_command(folder: Path, port: int) -> list[str]:
    """Return the command of a PostgreSQL server whose files lie in the folder."""
    command = [str(postgresql_program("postgres")), "-D", str(folder / "postgres"), "-p", str(port)]
    return [*command, "-h", LOOPBACK, "-c", "unix_socket_directories="]


def postgresql_program(name: str) -> Path:
    """Return a program of PostgreSQL.

    Raises:
        UsageError: PostgreSQL is not installed.
    """
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for root in _POSTGRESQL:
        folders += sorted(Path(root).parent.glob(f"{Path(root).name}*/**/bin"), reverse=True)[:8]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        raise UsageError(
            f"--postgresql needs PostgreSQL's program {name!r} on this machine; it is neither in PATH nor where "
            "packages put it; install postgresql, or leave the option out for SQLite"
        )
    return found


def ray_environment(token: Path) -> dict[str, str]:
    """Return the variables of Ray, on the head and for whoever talks to it on this machine."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        # Despite its name: without this Ray turns 127.0.0.1 into the machine's own address and listens to the world.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def mlflow_environment() -> dict[str, str]:
    """Return the variables of an MLflow server."""
    return {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def with_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables, with this installation's programs first in PATH, as jobs call `paretrim` by name."""
    path = environment.get("PATH", os.defpath)
    return {**environment, "PATH": f"{_BIN}{os.pathsep}{path}"}


def own_secret(path: Path, lines: Sequence[str] = ()) -> str:
    """Return the secret in a file, made on the first call; only this user can read the file.

    Args:
        path: The file.
        lines: What is written, with "{secret}" where the secret goes; the secret alone by default.
    """
    if not path.exists():
        secret = secrets.token_hex(32)
        text = "\n".join(line.replace("{secret}", secret) for line in lines) or secret
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    path.chmod(0o600)
    return path.read_text()
