"""Fault 7: the controller is killed (-9) before and after each of its writes, time and again, on either database."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from controller.storage import AttemptOutcome, Repository, StudyState, TrialState, open_database

LAUNCHER = """
import json, os, random, signal, sys
from collections import Counter
from pathlib import Path

from sqlalchemy import event

from controller.dispatch import search_inline
from controller.storage import Repository, open_database
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space


def kill_at(database, point):
    '''End this process the hard way at the given one of its database's moments, counted from 1.'''
    moments = 0

    def moment(kind):
        def count(*_arguments):
            nonlocal moments
            moments += 1
            if moments == point:
                with open(folder / "kinds", "a") as kinds:
                    kinds.write(kind + "\\n")
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    def statement(when):
        count = {verb: moment(f"{when} {verb}") for verb in ("INSERT", "UPDATE")}
        def look(connection, cursor, statement, *_arguments):
            verb = statement.split()[0]
            if verb in count:
                count[verb]()
        return look

    event.listen(database, "before_cursor_execute", statement("before"))
    event.listen(database, "after_cursor_execute", statement("after"))
    event.listen(database, "commit", moment("before commit"))
    event.listen(database, "checkin", moment("after transaction"))


def search(point):
    space = simulated_space(3)
    config = StudyConfig(name="s", space=space, evaluation_digest="e", trials=30, sampler="random")
    factory = StudyFactory(config=config, storage=url, cost_of=SimulatedCosts(space))
    study = factory()
    kill_at(study.outbox._engine, point)
    search_inline(study, SimulatedConfig(space=space, journal=folder / "journal")())
    study.outbox._engine.dispose()


url, folder, generator = sys.argv[1], Path(sys.argv[2]), random.Random(int(sys.argv[3]))
open_database(url).dispose()
kills = 0
while True:
    child = os.fork()
    if child == 0:
        search(generator.randint(1, 30) if kills < 60 else 0)
        os._exit(0)
    # The parent draws as the child does, so that each child has a point of its own.
    generator.randint(1, 30)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
        continue
    assert status == 0, status
    break
print(json.dumps({"kills": kills}))
"""


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_no_kill_between_two_writes_loses_or_repeats_a_trial(storage_url: str, tmp_path: Path, seed: int) -> None:
    script = tmp_path / "driver.py"
    script.write_text(LAUNCHER)
    command = [sys.executable, str(script), storage_url, str(tmp_path), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] >= 40
    kinds = set((tmp_path / "kinds").read_text().splitlines())
    assert {
        "before INSERT",
        "after INSERT",
        "before UPDATE",
        "after UPDATE",
        "before commit",
        "after transaction",
    } <= kinds

    database = open_database(storage_url)
    repository = Repository(database)
    (study,) = repository.studies()
    trials, attempts = repository.trials(study.id), repository.attempts(study.id)
    database.dispose()
    assert (study.state, study.holder) == (StudyState.COMPLETE, None)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    own = [trial for trial in trials if trial.repeat_of is None]
    assert len({trial.policy for trial in own}) == len(own)
    reported = Counter(a.trial for a in attempts if a.outcome is AttemptOutcome.REPORTED)
    assert reported == Counter(trial.number for trial in own)
    assert AttemptOutcome.OPEN not in {a.outcome for a in attempts}
    # Of the trial at work when a kill came the score was lost with it, and no other one's.
    evaluated = Counter(map(int, (tmp_path / "journal").read_text().split()))
    interrupted = Counter(a.trial for a in attempts if a.outcome is AttemptOutcome.INTERRUPTED)
    assert all(evaluated[n] <= 1 + interrupted[n] for n in evaluated)
