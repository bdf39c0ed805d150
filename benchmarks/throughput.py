"""Finished trials a second through Ray and SQL, and the share of a one-second trial that is not work.

    python -m benchmarks.throughput

Simulated workers that answer at once, two slots, 50 parameters, NSGA-II: the real study in its actor, real slots under
Ray Tune, SQLite in a file and PostgreSQL on this machine, both with commits that reach the disk. The rate counts what
lies between the first and the last trial that was told, so neither the start of Ray nor its end. The overhead is
measured in a search of its own with trials of one second: what the slots did not spend in trials.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.postgresql import PostgresServer, find_binaries
from benchmarks.recording import record
from controller.dispatch import RayOptions, search_on_ray
from controller.storage import AttemptOutcome, AttemptRecord, Repository, open_database
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

_SLOTS = 2
_TRIAL_S = 1.0


def main() -> None:
    """Measure with each database and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=50, help="two for each unit of the simulated model")
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--long-trials", type=int, default=60, help="trials of one second, for the overhead")
    arguments = parser.parse_args()
    if find_binaries() is None:
        parser.error("PostgreSQL is not installed; install the package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="paretrim-throughput-"))
    folder.chmod(0o755)
    (folder / "server").mkdir()
    server = PostgresServer(folder / "server", fsync=True)
    server.start()
    try:
        urls = {"sqlite": f"sqlite:///{folder}/paretrim.db", "postgresql": server.create_database("throughput")}
        found = {
            f"{name}_per_s": round(rate(search(url, arguments.parameters, arguments.trials, seconds=0.0)), 1)
            for name, url in urls.items()
        }
        long = search(f"sqlite:///{folder}/long.db", arguments.parameters, arguments.long_trials, seconds=_TRIAL_S)
    finally:
        server.stop()
        shutil.rmtree(folder)
    record(
        "throughput",
        {**found, "overhead_share": round(overhead_share(long), 4)},
        details={"slots": _SLOTS, "parameters": arguments.parameters, "trials": arguments.trials},
    )


def search(url: str, parameters: int, trials: int, *, seconds: float) -> list[AttemptRecord]:
    """Run a search and return the attempts that brought scores, in the order in which they ended."""
    space = simulated_space(parameters // 2)
    config = StudyConfig(
        name="throughput", space=space, sampler="nsga2", trials=trials, racing=False, evaluation_digest="simulated"
    )
    factory = StudyFactory(config=config, storage=url, cost_of=SimulatedCosts(space))
    search_on_ray(factory, SimulatedConfig(space=space, seconds=seconds), RayOptions(parallel=_SLOTS))
    database = open_database(url)
    repository = Repository(database)
    (study,) = repository.studies()
    found = [a for a in repository.attempts(study.id) if a.outcome is AttemptOutcome.REPORTED]
    database.dispose()
    return sorted(found, key=_ended)


def rate(attempts: list[AttemptRecord]) -> float:
    """Trials a second from the first to the last that was told."""
    return (len(attempts) - 1) / (_ended(attempts[-1]) - _ended(attempts[0]))


def overhead_share(attempts: list[AttemptRecord]) -> float:
    """Share of the slots' time that they did not spend in trials of one second, from the first trial on two slots on.

    The dense model goes alone, and at the end a slot runs out of work: neither counts.
    """
    by_slot = {
        slot: [_ended(a) for a in attempts if a.worker == slot and a.trial > 0] for slot in {a.worker for a in attempts}
    }
    spans = [times[-1] - times[0] for times in by_slot.values()]
    worked = [_TRIAL_S * (len(times) - 1) for times in by_slot.values()]
    return 1 - sum(worked) / sum(spans)


def _ended(attempt: AttemptRecord) -> float:
    assert attempt.ended is not None
    return attempt.ended.timestamp()


if __name__ == "__main__":
    main()
