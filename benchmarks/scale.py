"""Whether one controller keeps a thousand workers busy, in simulated time.

    python -m benchmarks.scale --workers 1000 --trials 20000

The real study and service on a SQLite file. Workers are events of a queue: each takes work, is at it for about a minute
of simulated time, tells, and takes more. The controller is one server: every call waits until it is free, and takes the
time that it really took here plus that of a call to a Ray actor, which is measured first. Heartbeats and the driver's
looks at the progress count too. `busy_share` is the share of the workers' time in trials, from the moment at which the
dense model was told (until then nothing else may run) to the last trial that was handed out. The plot shows time and
memory of the controller by trials.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.recording import RESULTS, record
from controller.dispatch import RayOptions
from controller.ray_session import ray_session
from controller.service import SlotProcess, StudyService
from controller.storage import Repository, open_database
from controller.study import Study
from controller.study_config import StudyConfig
from workers.protocol import TrialRequest
from workers.simulated import SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

T = TypeVar("T")

_CALLS = 3000
_WINDOW = 500
_LOOK_S = 0.25
_JITTER = 0.25
_MEGABYTE = 1e6


@dataclass(slots=True)
class Server:
    """The controller's process: it does one thing at a time.

    Attributes:
        call_s: What a call takes beside its work.
        now: Simulated seconds, as the service sees them.
        free_at: When it has done all that it was asked for.
        busy_s: How long it was at work.
    """

    call_s: float
    now: float = 0.0
    free_at: float = 0.0
    busy_s: float = 0.0

    def call(self, at: float, work: Callable[[], T]) -> T:
        """Do something once the server is free; `free_at` is then when it was done."""
        self.now = max(at, self.free_at)
        began = time.perf_counter()
        result = work()
        self.occupy(time.perf_counter() - began + self.call_s)
        return result

    def occupy(self, seconds: float) -> None:
        """Be busy from now on."""
        self.busy_s += seconds
        self.free_at = max(self.now, self.free_at) + seconds


@dataclass(slots=True)
class Found:
    """What was seen.

    Attributes:
        handed: When each trial after the dense model was handed out, and the seconds that it takes.
        dense_told_at: When the dense model was told.
        spent_ms: What the server took for each trial: all of its time since the trial before.
        memory_mb: Resident memory of the process, every `_WINDOW` trials.
    """

    handed: list[tuple[float, float]] = field(default_factory=list)
    dense_told_at: float | None = None
    spent_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


def main() -> None:
    """Simulate and print the share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="simulated seconds of a trial, a quarter more or less"
    )
    parser.add_argument("--parameters", type=int, default=50, help="two for each unit of the simulated model")
    arguments = parser.parse_args()
    call_s = measure_call_s()
    with tempfile.TemporaryDirectory(prefix="paretrim-scale-") as folder:
        server = Server(call_s=call_s)
        found = simulate(server, Path(folder), arguments)
    first, last = found.spent_ms[_WINDOW : 5 * _WINDOW], found.spent_ms[-4 * _WINDOW :]
    plot(found, RESULTS / "scale.png")
    record(
        "scale",
        {"busy_share": round(busy_share(found, arguments.workers), 4)},
        details={
            "workers": arguments.workers,
            "trials": arguments.trials,
            "trial_s": arguments.seconds,
            "parameters": arguments.parameters,
            "simulated_s": round(server.free_at),
            "controller_busy_share": round(server.busy_s / server.free_at, 4),
            "call_ms": round(1e3 * call_s, 3),
            "mean_ms_a_trial": round(statistics.mean(found.spent_ms), 2),
            "growth_of_time": round(statistics.median(last) / statistics.median(first), 2),
            "memory_mb": [round(found.memory_mb[0]), round(found.memory_mb[-1])],
            "kb_a_trial": round(1e3 * (found.memory_mb[-1] - found.memory_mb[0]) / len(found.spent_ms), 1),
        },
    )


def measure_call_s() -> float:
    """Seconds of a call to a Ray actor that does nothing."""
    import ray

    with ray_session(RayOptions()):
        actor = ray.remote(num_cpus=0)(_Idle).remote()
        ray.get(actor.call.remote())
        began = time.perf_counter()
        ray.get([actor.call.remote() for _ in range(_CALLS)])
        return (time.perf_counter() - began) / _CALLS


class _Idle:
    def call(self) -> None:
        """Do nothing."""


def simulate(server: Server, folder: Path, arguments: Any) -> Found:
    """Run the whole search in simulated time."""
    space = simulated_space(arguments.parameters // 2)
    config = StudyConfig(
        name="scale", space=space, sampler="nsga2", trials=arguments.trials, racing=False, evaluation_digest="simulated"
    )
    database = open_database(f"sqlite:///{folder}/paretrim.db")
    study = Study.open(config, Repository(database), SimulatedCosts(space))
    service = StudyService(study, clock=lambda: server.now)
    worker = SimulatedWorker(SimulatedConfig(space=space))
    generator = random.Random(0)
    found = Found()
    heartbeat_s = RayOptions().heartbeat_s
    # Events: when, a counter that breaks ties, the worker, and what it has just finished.
    events: list[tuple[float, int, int, TrialRequest | None]] = []
    for number in range(arguments.workers):
        server.call(0.0, lambda n=number: service.register(f"slot {n}", SlotProcess(node_id="n", pid=n)))  # type: ignore[misc]
        heapq.heappush(events, (generator.uniform(0, 1), number, number, None))
    counter, next_look, next_beats, spent_before = arguments.workers, 0.0, heartbeat_s, server.busy_s
    while events:
        at, _, number, finished = heapq.heappop(events)
        if at >= next_look:
            server.call(at, service.snapshot)
            next_look = server.free_at + _LOOK_S
        if at >= next_beats:
            server.now = max(at, server.free_at)
            for beating in range(arguments.workers):
                service.beat(f"slot {beating}", 1)
            server.occupy(arguments.workers * server.call_s)
            next_beats = at + heartbeat_s
        name = f"slot {number}"
        if finished is not None:
            report = worker.evaluate(finished)
            server.call(at, lambda: service.tell(name, 1, report))  # noqa: B023  # called at once
            if found.dense_told_at is None:
                found.dense_told_at = server.free_at
            found.spent_ms.append(1e3 * (server.busy_s - spent_before))
            spent_before = server.busy_s
            _note(found)
        work = server.call(server.free_at if finished else at, lambda: service.take(name, 1))  # noqa: B023  # as above
        if work.stop:
            continue
        counter += 1
        if not work.requests:
            heapq.heappush(events, (server.free_at + work.again_s, counter, number, None))
            continue
        (request,) = work.requests
        seconds = arguments.seconds * generator.uniform(1 - _JITTER, 1 + _JITTER)
        if found.dense_told_at is not None:
            found.handed.append((server.free_at, seconds))
        heapq.heappush(events, (server.free_at + seconds, counter, number, request))
    service.close()
    database.dispose()
    return found


def busy_share(found: Found, workers: int) -> float:
    """Share of the workers' time in trials, from the end of the dense model until the last trial was handed out."""
    assert found.dense_told_at is not None
    end = found.handed[-1][0]
    worked_s = sum(min(seconds, end - at) for at, seconds in found.handed)
    return worked_s / (workers * (end - found.dense_told_at))


def _note(found: Found) -> None:
    done = len(found.spent_ms)
    if done % _WINDOW:
        return
    found.memory_mb.append(_resident_mb())
    recent = statistics.median(found.spent_ms[-_WINDOW:])
    sys.stderr.write(f"{done} trials: {recent:.2f} ms a trial, {found.memory_mb[-1]:.0f} MB\n")


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / _MEGABYTE


def plot(found: Found, path: Path) -> None:
    """Draw time and memory of the controller by trials."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps = range(_WINDOW, len(found.spent_ms) + 1, _WINDOW)
    upper.plot(steps, [statistics.median(found.spent_ms[n - _WINDOW : n]) for n in steps])
    upper.set_ylabel("ms a trial")
    upper.set_ylim(bottom=0)
    lower.plot(steps, found.memory_mb[: len(steps)])
    lower.set_ylabel("memory, MB")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("trials")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
