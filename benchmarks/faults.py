"""A search under fire: what is left of it after everything that it rests on was killed, again and again.

    python -m benchmarks.faults --minutes 10

A controller in a process of its own searches with simulated workers of half a second on two raylets, with its study in
PostgreSQL and its messages going to an MLflow server, both behind proxies. Every 5 to 20 seconds one of these is killed
(-9) or cut off, at random, and comes back after a while. At the end the controller is told to stop, and the books are
checked: `lost` counts trials that were seen complete and are not, with the same score, at the end; `duplicated` those
that were counted twice; `mlflow_missing` steps that the outbox had taken and MLflow does not have.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks.postgresql import PostgresServer
from benchmarks.proxy import Proxy
from benchmarks.recording import record
from controller.dispatch import RayOptions, search_on_ray
from controller.progress import StudyProgress
from controller.storage import AttemptOutcome, Repository, TrialState, open_database
from controller.storage.schema import OutboxRow
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from controller.tracking.tracker import Tracker, Waits
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

_NAME = "faults"
_UNITS = 25
_TRIAL_S = 0.5
_NODES = 2
_FLUSH_S = 60.0


def main() -> None:
    """Run the search, or with --controller be its controller."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--gap", type=float, nargs=2, default=(5.0, 20.0), help="seconds between two blows, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--controller", nargs=3, metavar=("DATABASE", "MLFLOW", "RAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.controller:
        control(*arguments.controller)
        return
    # Ray reads it as it is imported: without it 127.0.0.1 becomes the machine's own address.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    folder = Path(tempfile.mkdtemp(prefix="paretrim-faults-"))
    folder.chmod(0o755)
    site = Site.start(folder, random.Random(arguments.seed))
    try:
        seen = besiege(site, 60 * arguments.minutes, tuple(arguments.gap))
        figures, details = check(site, seen)
    finally:
        site.end()
        shutil.rmtree(folder, ignore_errors=True)
    record(
        _NAME,
        {"kills": sum(site.kills.values()), **figures},
        details={"minutes": arguments.minutes, "gap_s": list(arguments.gap), **details},
    )


def control(database: str, mlflow: str, ray_address: str) -> None:
    """Search until told to stop."""
    space = simulated_space(_UNITS)
    config = StudyConfig(
        name=_NAME, space=space, sampler="random", trials=1_000_000, racing=False, evaluation_digest="simulated"
    )
    factory = StudyFactory(config=config, storage=database, cost_of=SimulatedCosts(space))
    study = factory()
    say = partial(print, file=sys.stderr, flush=True)
    tracker = Tracker(
        mlflow, study.outbox, study=_NAME, experiment=_NAME, say=say, waits=Waits(first_s=0.5, longest_s=5.0)
    )
    tracker.begin(name=_NAME, metric="accuracy", params={}, job_yaml=None)
    tracker.start()

    def on_progress(progress: StudyProgress) -> None:
        if progress.waits_for:
            say(progress.waits_for)
        elif progress.trials_done:
            tracker.progress(progress.trials_done, {"hypervolume": progress.hypervolume})

    options = RayOptions(parallel=_NODES, address=ray_address, grace_s=20.0, drain_s=30.0)
    search_on_ray(factory, SimulatedConfig(space=space, seconds=_TRIAL_S), options, on_progress)
    tracker.flush(_FLUSH_S)
    tracker.stop(5)


@dataclass
class Site:
    """All that the search rests on.

    Attributes:
        folder: Whatever is written.
        generator: Decides what is hit, when, and for how long.
        postgresql: The database.
        database: The proxy in front of it.
        mlflow_proxy: The proxy in front of MLflow.
        mlflow_port: Port of MLflow itself.
        cluster: The Ray cluster: a head without CPUs, and raylets.
        nodes: The raylets.
        kills: How often each was hit.
    """

    folder: Path
    generator: random.Random
    postgresql: PostgresServer
    database: Proxy
    mlflow_proxy: Proxy
    mlflow_port: int
    cluster: Any
    nodes: list[Any]
    mlflow: subprocess.Popen[bytes] | None = None
    controller: subprocess.Popen[bytes] | None = None
    kills: Counter[str] = field(default_factory=Counter)
    repairs: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, generator: random.Random) -> Site:
        """Start everything."""
        from ray import cluster_utils

        (folder / "postgresql").mkdir()
        postgresql = PostgresServer(folder / "postgresql", fsync=True)
        postgresql.start()
        mlflow_port = _free_port()
        head = {"num_cpus": 0, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": 2**27})
        site = cls(
            folder=folder,
            generator=generator,
            postgresql=postgresql,
            database=Proxy(postgresql.port),
            mlflow_proxy=Proxy(mlflow_port),
            mlflow_port=mlflow_port,
            cluster=cluster,
            nodes=[],
        )
        for _ in range(_NODES):
            site.add_node()
        site.start_mlflow()
        site.start_controller()
        return site

    def add_node(self) -> None:
        """Add a raylet with one CPU."""
        self.nodes.append(
            self.cluster.add_node(wait=False, num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=2**27)
        )

    def start_mlflow(self) -> None:
        """Start the MLflow server."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.mlflow_port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "mlflow.log").open("ab") as log:
            self.mlflow = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def start_controller(self) -> None:
        """Start the controller, or the next one."""
        url = self.postgresql.url(port=self.database.port)
        mlflow = f"http://127.0.0.1:{self.mlflow_proxy.port}"
        command = [sys.executable, "-m", "benchmarks.faults", "--controller", url, mlflow, self.cluster.address]
        with (self.folder / "controller.log").open("ab") as log:
            self.controller = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def strike(self) -> None:
        """Hit one thing."""
        acts: dict[str, Callable[[], object]] = {
            "worker": self._kill_worker,
            "raylet": self._kill_raylet,
            "controller": self._kill_controller,
            "postgresql": self._kill_postgresql,
            "mlflow": self._kill_mlflow,
            "database cut off": lambda: self._cut(self.database),
            "database slow": self._slow_down,
            "mlflow cut off": lambda: self._cut(self.mlflow_proxy),
        }
        name = self.generator.choice(list(acts))
        if acts[name]() is not False:
            self.kills[name] += 1
            sys.stderr.write(f"{time.strftime('%X')} {name}\n")

    def repair(self, *, all_of_it: bool = False) -> None:
        """Bring back what is due, and a controller that has ended."""
        due = [act for at, act in self.repairs if all_of_it or at <= time.monotonic()]
        self.repairs = [(at, act) for at, act in self.repairs if not all_of_it and at > time.monotonic()]
        for act in due:
            act()
        if self.controller is not None and self.controller.poll() is not None and not all_of_it:
            self.start_controller()

    def end(self) -> None:
        """End everything."""
        for process in (self.controller, self.mlflow):
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.cluster.shutdown()
        self.database.close()
        self.mlflow_proxy.close()
        self.postgresql.stop()

    def _later(self, longest_s: float, act: Callable[[], None]) -> None:
        self.repairs.append((time.monotonic() + self.generator.uniform(1.0, longest_s), act))

    def _kill_worker(self) -> bool:
        raylets = {info.process.pid for node in self.nodes for info in node.all_processes["raylet"]}
        workers = []
        # Processes of Ray bear the name of what they do, in place of what they were started with.
        for place in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(place.read_text().rpartition(")")[2].split()[1])
                if parent in raylets and b"Trainable" in place.with_name("cmdline").read_bytes():
                    workers.append(int(place.parent.name))
        if not workers:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.generator.choice(workers), signal.SIGKILL)
        return True

    def _kill_raylet(self) -> bool:
        if len(self.nodes) < _NODES:
            return False
        node = self.nodes.pop(self.generator.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self._later(8.0, self.add_node)
        return True

    def _kill_controller(self) -> None:
        assert self.controller is not None
        self.controller.kill()
        self.controller.wait()

    def _kill_postgresql(self) -> bool:
        if any(act == self.postgresql.start for _, act in self.repairs):
            return False
        self.postgresql.stop(signal.SIGKILL)
        self._later(8.0, self.postgresql.start)
        return True

    def _kill_mlflow(self) -> bool:
        if self.mlflow is None:
            return False
        os.killpg(self.mlflow.pid, signal.SIGKILL)
        self.mlflow.wait()
        self.mlflow = None
        self._later(10.0, self.start_mlflow)
        return True

    def _cut(self, proxy: Proxy) -> bool:
        if proxy.is_cut:
            return False
        proxy.cut()
        self._later(6.0, partial(setattr, proxy, "is_cut", False))
        return True

    def _slow_down(self) -> bool:
        self.database.delay_s = 0.2
        self._later(5.0, partial(setattr, self.database, "delay_s", 0.0))
        return True


def besiege(site: Site, seconds: float, gap_s: tuple[float, ...]) -> dict[int, tuple[Any, ...]]:
    """Hit one thing after another; return the trials that were seen complete, with what they had then."""
    seen: dict[int, tuple[Any, ...]] = {}
    deadline = time.monotonic() + seconds
    next_strike = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        site.repair()
        if time.monotonic() >= next_strike:
            look(site, seen)
            site.strike()
            next_strike = time.monotonic() + site.generator.uniform(*gap_s)
        time.sleep(0.2)
    site.repair(all_of_it=True)
    # The last blow may have hit the controller.
    site.repair()
    return seen


def look(site: Site, seen: dict[int, tuple[Any, ...]]) -> None:
    """Note what is complete, where the database can be asked."""
    with contextlib.suppress(Exception):
        database = open_database(site.postgresql.url())
        try:
            repository = Repository(database)
            study = repository.find_study(_NAME)
            if study is not None:
                complete = [t for t in repository.trials(study.id) if t.state is TrialState.COMPLETE]
                seen.update({t.number: (t.policy.digest, t.quality, t.finished) for t in complete})
        finally:
            database.dispose()


def check(site: Site, seen: dict[int, tuple[Any, ...]]) -> tuple[dict[str, int], dict[str, Any]]:
    """Let the controller end in peace, and check the books."""
    time.sleep(20.0)
    site.repair()
    assert site.controller is not None
    site.controller.send_signal(signal.SIGTERM)
    code = site.controller.wait(240)
    database = open_database(site.postgresql.url())
    repository = Repository(database)
    (study,) = repository.studies()
    trials = {trial.number: trial for trial in repository.trials(study.id)}
    attempts = repository.attempts(study.id)
    with database.connect() as connection:
        messages = connection.execute(select(OutboxRow.payload_json).where(OutboxRow.kind == "mlflow.progress"))
        steps = {json.loads(text)["step"] for (text,) in messages}
        unsent = len(connection.execute(select(OutboxRow.id).where(OutboxRow.sent_at.is_(None))).all())
    database.dispose()
    lost = [
        number
        for number, before in seen.items()
        if number not in trials
        or (trials[number].policy.digest, trials[number].quality, trials[number].finished) != before
    ]
    reported = Counter(a.trial for a in attempts if a.outcome is AttemptOutcome.REPORTED)
    own = Counter(t.policy.digest for t in trials.values() if t.repeat_of is None)
    figures = {
        "trials_completed": sum(t.state is TrialState.COMPLETE for t in trials.values()),
        "lost": len(lost) + sum(t.state is TrialState.COMPLETE and not reported[n] for n, t in trials.items()),
        "duplicated": sum(count > 1 for count in reported.values()) + sum(count > 1 for count in own.values()),
        "mlflow_missing": len(steps - _steps_in_mlflow(site)),
    }
    details = {
        "kills_of": dict(sorted(site.kills.items())),
        "failed": dict(Counter(str(t.reason) for t in trials.values() if t.state is TrialState.FAIL)),
        "attempts": dict(Counter(str(a.outcome) for a in attempts)),
        "mlflow_steps": len(steps),
        "mlflow_unsent": unsent,
        "controllers": study.fence,
        "last_exit_code": code,
    }
    return figures, details


def _steps_in_mlflow(site: Site) -> set[int]:
    from mlflow import MlflowClient

    uri = f"http://127.0.0.1:{site.mlflow_port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):
            break
        time.sleep(0.5)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(_NAME)
    if experiment is None:
        return set()
    runs = client.search_runs([experiment.experiment_id])
    return {m.step for run in runs for m in client.get_metric_history(run.info.run_id, "hypervolume")}


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
