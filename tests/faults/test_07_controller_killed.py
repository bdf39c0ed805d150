"""Faults 7 and 34: the controller is killed (-9) or told to stop in mid-search, and the search is run again."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from controller.dispatch import search_inline
from controller.storage import AttemptOutcome, Repository, TrialRecord, TrialState, open_database
from controller.study_config import StopReason, StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

DRIVER = """
import sys
from pathlib import Path
from controller.dispatch import RayOptions, search_on_ray
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

if __name__ == "__main__":
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    space = simulated_space(4)
    config = StudyConfig(name="s", space=space, evaluation_digest="e", trials=40, sampler="nsga2")
    factory = StudyFactory(config=config, storage=f"sqlite:///{folder}/paretrim.db", cost_of=SimulatedCosts(space))
    worker = SimulatedConfig(space=space, seconds=seconds, journal=folder / "journal")
    progress = search_on_ray(factory, worker, RayOptions(parallel=2))
    print("ended:", progress.stop, progress.trials_done, flush=True)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    script = folder / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, start_new_session=True)


def wait_for_evaluations(folder: Path, count: int, driver: subprocess.Popen[str]) -> None:
    journal = folder / "journal"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert driver.poll() is None
        if journal.exists() and len(journal.read_text().split()) >= count:
            return
        time.sleep(0.02)
    pytest.fail("the search did not get going")


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def still_working(processes: list[int]) -> list[str]:
    """Return the names of processes that could still score or write; Ray's own agents end a minute later."""
    names = []
    for pid in processes:
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]
            if name and "Agent" not in name:
                names.append(name)
    return names


def read(folder: Path) -> tuple[list[TrialRecord], Counter[int]]:
    """Return the trials, and how often each reported scores."""
    database = open_database(f"sqlite:///{folder}/paretrim.db")
    repository = Repository(database)
    (study,) = repository.studies()
    trials = repository.trials(study.id)
    reported = [a.trial for a in repository.attempts(study.id) if a.outcome is AttemptOutcome.REPORTED]
    database.dispose()
    return trials, Counter(reported)


def run_to_the_end(folder: Path) -> str:
    driver = start(folder, 0.05)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0
    return output.strip()


def check_nothing_was_lost_or_repeated(folder: Path, before: list[TrialRecord]) -> None:
    after, reported = read(folder)
    finished = [trial for trial in before if trial.state is TrialState.COMPLETE]
    assert finished
    assert [after[trial.number] for trial in finished] == finished
    assert set(reported.values()) == {1}
    assert all(trial.state is TrialState.COMPLETE for trial in after)
    own = [trial for trial in after if trial.repeat_of is None]
    assert len({trial.policy for trial in own}) == len(own) == len(reported)
    # What reported before the end was not evaluated again; only what was at work may have been.
    evaluated = Counter(map(int, (folder / "journal").read_text().split()))
    assert all(evaluated[trial.number] == 1 for trial in finished if trial.repeat_of is None)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for what is left in /proc")
def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    driver = start(tmp_path, 0.15)
    wait_for_evaluations(tmp_path, 15, driver)
    family = descendants(driver.pid)
    assert len(family) > 2
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=30)
    # The next search starts at once: whatever is left of this one must not write any more.
    before, _ = read(tmp_path)
    assert run_to_the_end(tmp_path) == "ended: trials 40"
    check_nothing_was_lost_or_repeated(tmp_path, before)
    assert still_working(family) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_search_that_is_told_to_stop_finishes_what_is_at_work(tmp_path: Path, number: signal.Signals) -> None:
    driver = start(tmp_path, 0.15)
    wait_for_evaluations(tmp_path, 15, driver)
    os.kill(driver.pid, number)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0
    assert output.startswith("ended: interrupted")
    before, _ = read(tmp_path)
    assert {trial.state for trial in before} <= {TrialState.COMPLETE, TrialState.WAITING}
    space = simulated_space(4)
    config = StudyConfig(name="s", space=space, evaluation_digest="e", trials=40, sampler="nsga2")
    factory = StudyFactory(config=config, storage=f"sqlite:///{tmp_path}/paretrim.db", cost_of=SimulatedCosts(space))
    progress = search_inline(factory(), SimulatedConfig(space=space, journal=tmp_path / "journal")())
    assert (progress.stop, progress.trials_done) == (StopReason.TRIALS, 40)
    check_nothing_was_lost_or_repeated(tmp_path, before)
