"""A search that runs is given other numbers, or told to stop, through its database."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.dispatch import RayOptions, search_inline, search_on_ray
from controller.progress import StudyProgress
from controller.storage import Repository, open_database
from controller.study import Study
from controller.study_config import StopReason, StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

SPACE = simulated_space(4)
CONFIG = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=100_000, sampler="random")


def scale(url: str, *options: str) -> None:
    done = CliRunner().invoke(app, ["scale", "s", *options, "--storage", url])
    assert done.exit_code == ExitCode.OK, done.output
    assert done.stdout.startswith("asked process ")


def test_another_number_of_trials_and_a_stop_are_heard_of(storage_url: str) -> None:
    database = open_database(storage_url)
    worker = SimulatedConfig(space=SPACE, seconds=0.01)()
    study = Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE))
    progress = search_inline(study, worker, _once(lambda: scale(storage_url, "--trials", "5")))
    assert progress.stop is StopReason.TRIALS
    assert 5 <= progress.trials_done < 10_000

    # The next search goes by its own job again.
    study = Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE))
    assert study.remaining > 80_000
    progress = search_inline(study, worker, _once(lambda: scale(storage_url, "--stop")))
    assert progress.stop is StopReason.INTERRUPTED
    done = CliRunner().invoke(app, ["scale", "s", "--stop", "--storage", storage_url])
    assert done.exit_code == ExitCode.USAGE
    assert "nobody searches study 's' just now" in done.stderr
    database.dispose()


def _once(act):
    waiting = [act]
    return lambda progress: waiting.pop()() if waiting and progress.trials_done else None


def test_nothing_to_change_and_no_study_are_refused(storage_url: str) -> None:
    open_database(storage_url).dispose()
    runner = CliRunner()
    nothing = runner.invoke(app, ["scale", "s", "--storage", storage_url])
    assert (nothing.exit_code, "say what to change" in nothing.stderr) == (ExitCode.USAGE, True)
    nobody = runner.invoke(app, ["scale", "s", "--trials", "9", "--storage", storage_url])
    assert (nobody.exit_code, "there is no study 's'" in nobody.stderr) == (ExitCode.USAGE, True)


def test_slots_come_and_go_while_the_search_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/paretrim.db"
    seen: list[StudyProgress] = []
    stop = threading.Event()

    def until_at_work(count: int) -> None:
        deadline = time.monotonic() + 90
        while (newest := [p.running for p in seen[-1:]]) != [count] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert newest == [count]

    failed: list[BaseException] = []

    def ask() -> None:
        try:
            until_at_work(1)
            scale(url, "--parallel", "3")
            until_at_work(3)
            scale(url, "--parallel", "2")
            until_at_work(2)
        except BaseException as error:
            failed.append(error)
        finally:
            stop.set()

    asking = threading.Thread(target=ask)
    asking.start()
    # Long trials, so that a batch is one trial, and what runs is what slots there are.
    search_on_ray(
        StudyFactory(config=CONFIG, storage=url, cost_of=SimulatedCosts(SPACE)),
        SimulatedConfig(space=SPACE, seconds=1.5),
        RayOptions(parallel=1, cpus_per_worker=0.25),
        on_progress=seen.append,
        stop=stop,
    )
    asking.join()
    if failed:
        raise failed[0]
    assert seen[-1].failed == 0


DRIVER = """
import os, sys, threading, time
from pathlib import Path

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
from ray.cluster_utils import Cluster

from controller.dispatch import RayOptions, search_on_ray
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

if __name__ == "__main__":
    url = sys.argv[1]
    node = {"node_ip_address": "127.0.0.1", "object_store_memory": 2**27}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    first = cluster.add_node(num_cpus=1, **node)
    space = simulated_space(4)
    config = StudyConfig(name="s", space=space, evaluation_digest="e", trials=60, sampler="random")
    factory = StudyFactory(config=config, storage=url, cost_of=SimulatedCosts(space))
    changed = []

    def on_progress(progress):
        # A second node joins late; once both are at work, the first one is killed.
        if not changed and progress.trials_done >= 5:
            changed.append("joined")
            cluster.add_node(wait=False, num_cpus=1, **node)
        elif changed == ["joined"] and progress.running == 2 and progress.trials_done >= 10:
            changed.append("left")
            cluster.remove_node(first, allow_graceful=False)

    options = RayOptions(parallel=2, address=cluster.address, grace_s=10.0)
    progress = search_on_ray(factory, SimulatedConfig(space=space, seconds=0.5), options, on_progress)
    print(progress.stop, progress.trials_done, progress.failed, *changed, flush=True)
    cluster.shutdown()
"""


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_one_that_leaves_costs_its_trials_at_work(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/paretrim.db"
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, str(script), url], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "trials 60 0 joined left"
    database = open_database(url)
    repository = Repository(database)
    (study,) = repository.studies()
    attempts = repository.attempts(study.id)
    database.dispose()
    # Two slots at most were at work on it; what else they held was never begun, and is given back.
    assert sum(a.outcome == "failed" for a in attempts) <= 2
    assert {a.worker for a in attempts} >= {"slot 0", "slot 1"}
