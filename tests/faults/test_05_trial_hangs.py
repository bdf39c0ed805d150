"""Fault 5: a trial that hangs is given up after its time, and its process is ended."""

import os
import signal
import time
from pathlib import Path

from controller.dispatch import RayOptions, search_on_ray
from controller.storage import Repository, TrialState, open_database
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from workers.protocol import FailureReason
from workers.simulated import Fault, SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

SPACE = simulated_space(2)
HUNG = 3


class NotedWorker:
    """Makes workers that note their process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self) -> SimulatedWorker:
        (self._folder / f"pid-{os.getpid()}").touch()
        # Deaf to the polite way of ending it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return SimulatedWorker(SimulatedConfig(space=SPACE, seconds=0.02, faults={HUNG: Fault.HANG}))


def test_a_hanging_trial_costs_its_time_and_its_process(tmp_path: Path, pickled_by_value: None) -> None:
    url = f"sqlite:///{tmp_path}/paretrim.db"
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=6, sampler="random")
    factory = StudyFactory(config=config, storage=url, cost_of=SimulatedCosts(SPACE))
    progress = search_on_ray(factory, NotedWorker(tmp_path), RayOptions(trial_timeout_s=1.0))
    assert (progress.trials_done + progress.baselines_done, progress.failed) == (6 + progress.baselines_total, 1)

    database = open_database(url)
    repository = Repository(database)
    (study,) = repository.studies()
    trials = repository.trials(study.id)
    database.dispose()
    failed = [(t.number, t.reason, t.message) for t in trials if t.state is TrialState.FAIL]
    assert failed == [(HUNG, FailureReason.TIMEOUT, "no result within 1 s")]
    processes = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert len(processes) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline, "a worker outlived its search"
        time.sleep(0.1)
