"""Fault 10: the database goes away in mid-search. The search waits, says so, goes on, and nothing is lost."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from benchmarks.postgresql import PostgresServer
from controller.dispatch import RayOptions, search_inline, search_on_ray
from controller.progress import StudyProgress
from controller.storage import (
    AttemptOutcome,
    DatabaseGoneError,
    Patience,
    Repository,
    TrialState,
    open_database,
)
from controller.study import Study
from controller.study_config import StopReason, StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

SPACE = simulated_space(4)
CONFIG = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=40, sampler="random")


@pytest.fixture
def server(postgresql: PostgresServer) -> Iterator[PostgresServer]:
    """The server of all tests, up again at the end whatever was done to it."""
    yield postgresql
    postgresql.stop()
    postgresql.start()


def check_every_trial_is_there_once(url: str) -> None:
    database = open_database(url)
    repository = Repository(database)
    (study,) = repository.studies()
    trials = repository.trials(study.id)
    attempts = repository.attempts(study.id)
    database.dispose()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert [trial.number for trial in trials] == list(range(len(trials)))
    reported = Counter(a.trial for a in attempts if a.outcome is AttemptOutcome.REPORTED)
    assert set(reported) == {trial.number for trial in trials if trial.repeat_of is None}
    assert set(reported.values()) == {1}


def test_a_search_outlives_a_killed_database(server: PostgresServer, tmp_path: Path) -> None:
    url = server.create_database("killed")
    seen: list[StudyProgress] = []
    done = threading.Event()

    def kill_and_restart() -> None:
        while not any(p.trials_done >= 5 for p in seen) and not done.wait(0.05):
            pass
        server.stop(signal.SIGKILL)
        deadline = time.monotonic() + 120
        while not any(p.waits_for for p in seen) and not done.wait(0.1) and time.monotonic() < deadline:
            pass
        server.start()

    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    journal = tmp_path / "journal"
    try:
        progress = search_on_ray(
            StudyFactory(config=CONFIG, storage=url, cost_of=SimulatedCosts(SPACE)),
            SimulatedConfig(space=SPACE, seconds=0.2, journal=journal),
            # Slots that wait for the database with the study must not count as dead.
            RayOptions(parallel=2, grace_s=4.0),
            on_progress=seen.append,
        )
    finally:
        done.set()
        killer.join()
    assert (progress.stop, progress.trials_done, progress.failed) == (StopReason.TRIALS, 40, 0)
    said = next(p.waits_for for p in seen if p.waits_for)
    assert said.startswith("waiting for the database, which has not answered for")
    check_every_trial_is_there_once(url)
    evaluated = Counter(journal.read_text().split())
    assert set(evaluated.values()) == {1}


def test_a_database_that_stays_away_ends_the_search_in_words(server: PostgresServer) -> None:
    database = open_database(server.create_database("gone"))
    repository = Repository(database, Patience(quiet_s=0.0, give_up_s=0.5))
    study = Study.open(CONFIG, repository, SimulatedCosts(SPACE))
    server.stop()
    with pytest.raises(
        DatabaseGoneError, match=r"must come back .* has not answered for \d+ s: .*run the search again"
    ):
        study.ask()
    database.dispose()


class ForgetfulPatience(Patience):
    """Every write reaches the database, and the news of it is lost with the connection, each time."""

    def run(self, action: Callable[[bool], Any]) -> Any:
        action(False)
        return action(True)


def test_a_write_whose_success_was_not_heard_of_counts_once(storage_url: str) -> None:
    database = open_database(storage_url)
    study = Study.open(CONFIG, Repository(database, ForgetfulPatience()), SimulatedCosts(SPACE))
    progress = search_inline(study, SimulatedConfig(space=SPACE)())
    database.dispose()
    assert (progress.stop, progress.trials_done, len(progress.front) > 1) == (StopReason.TRIALS, 40, True)
    check_every_trial_is_there_once(storage_url)


def test_connections_cut_at_any_statement_lose_nothing(postgresql: PostgresServer) -> None:
    url = postgresql.create_database("cut")
    database = open_database(url)
    other = open_database(url)
    count = 0

    def cut(_connection: Any, _cursor: Any, _statement: str, *_rest: Any) -> None:
        """Let an administrator end this connection, before every eleventh statement."""
        nonlocal count
        count += 1
        if count % 11 == 0:
            with other.connect() as administrator:
                administrator.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = 'cut' AND pid <> pg_backend_pid()"
                )

    repository = Repository(database, Patience(first_wait_s=0.01))
    study = Study.open(CONFIG, repository, SimulatedCosts(SPACE))
    event.listen(database, "before_cursor_execute", cut)
    progress = search_inline(study, SimulatedConfig(space=SPACE)())
    event.remove(database, "before_cursor_execute", cut)
    assert count > 200
    assert (progress.stop, progress.trials_done) == (StopReason.TRIALS, 40)
    database.dispose()
    other.dispose()
    check_every_trial_is_there_once(url)


def test_another_error_of_the_database_is_told_at_once(storage_url: str) -> None:
    database = open_database(storage_url)
    repository = Repository(database)
    study = Study.open(CONFIG, repository, SimulatedCosts(SPACE))
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE attempts")
    with pytest.raises(DBAPIError, match="attempts"):
        study.ask()
    database.dispose()
