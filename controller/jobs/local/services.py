"""Starts a Ray head, an MLflow server and a database on this machine, and ends them together."""

import os
import shlex
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.errors import UsageError
from controller.jobs.cluster import Cluster, ClusterError
from controller.jobs.entrypoint import HOME_VARIABLE
from controller.jobs.local.child import LOOPBACK, Child, free_ports, is_listening
from controller.jobs.local.commands import (
    USER,
    RayPorts,
    mlflow_command,
    mlflow_environment,
    own_secret,
    postgres_command,
    ray_command,
    ray_environment,
    with_programs,
)
from controller.jobs.local.postgresql import create_database, prepare_postgresql
from controller.record import Record
from controller.where_kept import STORAGE_VARIABLE, TRACKING_VARIABLE

_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """What is started, and where.

    Attributes:
        folder: For the database, MLflow's files, tables, reports, logs and the token.
        port: Of Ray's jobs and dashboard.
        mlflow_port: Of MLflow.
        cpus: CPU cores that jobs share; None takes the machine's.
        gpus: GPUs that jobs share; None takes what Ray finds.
        postgresql: Whether the database is PostgreSQL; else it is a SQLite file.
    """

    folder: Path
    port: int = 8265
    mlflow_port: int = 5000
    cpus: int | None = None
    gpus: int | None = None
    postgresql: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalServices(Record):
    """Services that run.

    Attributes:
        address: Of Ray's jobs and dashboard.
        mlflow: Of MLflow.
        storage: URL of the database, without a password.
        metrics: Of the metrics for Prometheus.
        logs: Folder with the services' logs.
        environment: Variables for terminals that use them.
    """

    address: str
    mlflow: str
    storage: str
    metrics: str
    logs: Path
    environment: dict[str, str]

    @property
    def exports(self) -> tuple[str, str]:
        """Two lines for a shell: one for the cluster, one for where results are."""
        kept = (STORAGE_VARIABLE, TRACKING_VARIABLE, HOME_VARIABLE, "PGPASSFILE")
        of_results = [name for name in self.environment if name in kept]
        of_cluster = [name for name in self.environment if name not in kept]
        first, second = (
            "export " + " ".join(f"{name}={shlex.quote(self.environment[name])}" for name in names)
            for names in (of_cluster, of_results)
        )
        return first, second


class Running:
    """Services that run, to be watched."""

    def __init__(self, services: LocalServices, children: list[Child]) -> None:
        self.services = services
        self._children = children

    def check(self) -> None:
        """Make sure that all run.

        Raises:
            ServiceError: One of them has ended.
        """
        for child in self._children:
            child.check()

    def stop_jobs(self) -> list[str]:
        """Ask the jobs at work to save and stop.

        Returns:
            Ids of those that were asked.
        """
        cluster = self.cluster()
        active = [attempt for attempt in cluster.attempts() if not attempt.state.is_ended]
        for attempt in active:
            cluster.stop(attempt.submission_id)
        return [attempt.job_id for attempt in active]

    def jobs_at_work(self) -> bool:
        """Whether a job has not ended."""
        return any(not attempt.state.is_ended for attempt in self.cluster().attempts())

    def cluster(self) -> Cluster:
        """Connect to the Ray head."""
        return Cluster(self.services.address)


@contextmanager
def local_services(options: LocalOptions) -> Iterator[Running]:
    """Start all services, and end them with the block, the newest first.

    Raises:
        UsageError: A port is taken, or PostgreSQL is wanted and can't be had.
        ServiceError: A service does not start.
    """
    with ExitStack() as stack:
        starter = _Starter(options, stack)
        yield Running(starter.start_all(), starter.children)


class _Starter:
    """Starts one service after the other; the stack ends them."""

    def __init__(self, options: LocalOptions, stack: ExitStack) -> None:
        self.children: list[Child] = []
        self._options = options
        self._stack = stack
        self._folder = options.folder.absolute()
        self._logs = self._folder / "logs"
        for port, option in ((options.port, "--port"), (options.mlflow_port, "--mlflow-port")):
            if is_listening(port):
                raise UsageError(
                    f"port {port} of {LOOPBACK} must be free; somebody listens there; choose another {option}"
                )
        self._logs.mkdir(parents=True, exist_ok=True)

    def start_all(self) -> LocalServices:
        mlflow = f"http://{LOOPBACK}:{self._options.mlflow_port}"
        results = self._database() | {TRACKING_VARIABLE: mlflow, HOME_VARIABLE: str(self._folder)}
        self._start_mlflow()
        ports, access = self._start_ray(results)
        address = f"http://{LOOPBACK}:{ports.dashboard}"
        return LocalServices(
            address=address,
            mlflow=mlflow,
            storage=results[STORAGE_VARIABLE],
            metrics=f"http://{LOOPBACK}:{ports.metrics}/metrics",
            logs=self._logs,
            environment={"PARETRIM_ADDRESS": address, **access, **results},
        )

    def _database(self) -> dict[str, str]:
        """Start the database where it needs a server; return the variables that name it."""
        if not self._options.postgresql:
            return {STORAGE_VARIABLE: f"sqlite:///{self._folder}/paretrim.db"}
        port, passfile = prepare_postgresql(self._folder)
        command = postgres_command(self._folder, port)
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for its clients.
        server = self._start("postgresql", command, dict(os.environ), ends_by=signal.SIGINT)
        server.wait_until(lambda: is_listening(port), timeout_s=_START_S)
        create_database(port, passfile)
        url = f"postgresql+psycopg://{USER}@{LOOPBACK}:{port}/{USER}"
        return {STORAGE_VARIABLE: url, "PGPASSFILE": str(passfile)}

    def _start_mlflow(self) -> None:
        port = self._options.mlflow_port
        server = self._start("mlflow", mlflow_command(self._folder, port), {**os.environ, **mlflow_environment()})
        server.wait_until(lambda: is_listening(port), timeout_s=_START_S)

    def _start_ray(self, results: dict[str, str]) -> tuple[RayPorts, dict[str, str]]:
        """Start the Ray head; return its ports, and the variables that open it."""
        metrics, head, agent, client = free_ports(4)
        ports = RayPorts(dashboard=self._options.port, metrics=metrics, head=head, agent=agent, client=client)
        own_secret(self._folder / "token")
        access = ray_environment(self._folder / "token")
        environment = with_programs({**os.environ, **access, **results})
        environment.pop("RAY_ADDRESS", None)
        session = Path(self._stack.enter_context(_session_folder()))
        command = ray_command(ports, session, cpus=self._options.cpus or os.cpu_count() or 1, gpus=self._options.gpus)
        server = self._start("ray", command, environment)
        address = f"http://{LOOPBACK}:{ports.dashboard}"
        os.environ.update(access)
        server.wait_until(lambda: is_listening(ports.dashboard) and _answers(address), timeout_s=_START_S)
        return ports, access

    def _start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        ends_by: signal.Signals = signal.SIGTERM,
    ) -> Child:
        child = Child(name, command, environment=environment, log=self._logs / f"{name}.log")
        self._stack.callback(child.end, ends_by)
        self.children.append(child)
        return child


def _session_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for sockets, whose paths must be short, and for what ends with the cluster."""
    return tempfile.TemporaryDirectory(prefix="paretrim-ray-", ignore_cleanup_errors=True)


def _answers(address: str) -> bool:
    try:
        Cluster(address).attempts()
    except ClusterError:
        return False
    return True
