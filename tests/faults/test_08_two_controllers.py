"""Fault 8: one controller at a time. The second says who holds the study; a dead one's study is free again."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from controller.cli.errors import exit_code_of
from controller.cli.exit_codes import ExitCode
from controller.dispatch import search_inline
from controller.storage import Holder, Repository, StudyHeldError, StudyLostError, open_database
from controller.storage.clock import read_clock
from controller.storage.schema import StudyRow
from controller.study import Study
from controller.study_config import StudyConfig
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

SPACE = simulated_space(2)
CONFIG = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=20, sampler="random")
CONTROLLER = """
import sys
from controller.dispatch import search_inline
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

space = simulated_space(2)
config = StudyConfig(name="s", space=space, evaluation_digest="e", trials=20, sampler="random")
study = StudyFactory(config=config, storage=sys.argv[1], cost_of=SimulatedCosts(space))()
print("holds", flush=True)
search_inline(study, SimulatedConfig(space=space, seconds=float(sys.argv[2]))())
"""
ELSEWHERE = Holder(host="far", place="far away", pid=1, born=1)


@pytest.fixture
def database(storage_url: str) -> Iterator[Engine]:
    engine = open_database(storage_url)
    yield engine
    engine.dispose()


@pytest.fixture
def controller(storage_url: str, tmp_path: Path, database: Engine) -> Iterator[subprocess.Popen[str]]:
    """A controller in a process of its own, in the midst of a search."""
    script = tmp_path / "driver.py"
    script.write_text(CONTROLLER)
    process = subprocess.Popen([sys.executable, str(script), storage_url, "3600"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate(timeout=30)


def open_study(database: Engine, say: list[str] | None = None) -> Study:
    lines = [] if say is None else say
    return Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE), say=lines.append)


def test_a_second_controller_says_who_holds_the_study(database: Engine, controller: subprocess.Popen[str]) -> None:
    said: list[str] = []
    with pytest.raises(StudyHeldError, match=rf"process {controller.pid} on \S+ has it since 20\d\d-.* UTC") as caught:
        open_study(database, said)
    assert exit_code_of(caught.value) is ExitCode.HELD
    assert said == []
    with pytest.raises(StudyHeldError, match=f"process {controller.pid} on"):
        Repository(database).check_free("s")


def test_the_study_of_a_killed_controller_is_free_at_once(database: Engine, controller: subprocess.Popen[str]) -> None:
    controller.send_signal(signal.SIGKILL)
    # Not waited for: a zombie has ended, too.
    deadline = time.monotonic() + 30
    while Path(f"/proc/{controller.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
    said: list[str] = []
    study = open_study(database, said)
    assert said == []
    progress = search_inline(study, SimulatedConfig(space=SPACE)())
    assert progress.trials_done == 20
    found = Repository(database).find_study("s")
    assert found is not None
    assert found.holder is None


def hold_elsewhere(database: Engine, seconds: float) -> Study:
    """Let a controller on another machine have the study for a while yet."""
    study = Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE), holder=ELSEWHERE)
    with database.begin() as connection:
        ends = read_clock(connection) + timedelta(seconds=seconds)
        connection.execute(update(StudyRow).values(lease_expires_at=ends))
    return study


def test_a_controller_elsewhere_is_waited_for_until_its_lease_ends(database: Engine) -> None:
    gone = hold_elsewhere(database, 0.0)
    (request,) = gone.ask()
    hold_elsewhere(database, 4.0)
    said: list[str] = []
    study = open_study(database, said)
    assert said == ["waiting up to 20 s: process 1 on far had the study, and may still be at work"]
    # Should it wake up again, it is shut out.
    with pytest.raises(StudyLostError, match="only the newest controller"):
        gone.tell(SimulatedConfig(space=SPACE)().evaluate(request))
    study.close()


def test_a_controller_elsewhere_that_is_heard_of_has_the_study(database: Engine) -> None:
    study = hold_elsewhere(database, 5.0)
    study.keep()
    try:
        with pytest.raises(StudyHeldError, match="process 1 on far has it since"):
            open_study(database)
    finally:
        study.close()
    open_study(database).close()


def test_a_number_that_was_given_out_again_is_another_process(database: Engine) -> None:
    here = Holder.current()
    assert not here.is_gone()
    reborn = Holder.from_json(json.dumps({**json.loads(here.to_json()), "born": 1}))
    assert reborn.is_gone()
    assert not ELSEWHERE.is_gone()
