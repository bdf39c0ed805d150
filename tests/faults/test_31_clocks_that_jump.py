"""Fault 31: clocks jump. Leases go by the database's clock, durations by the monotonic one."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from controller.storage import Holder, Repository, StudyHeldError, lease, open_database, repository
from controller.storage.clock import read_clock
from controller.storage.schema import StudyRow
from controller.study import Study
from controller.study_config import StudyConfig
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

SPACE = simulated_space(2)
CONFIG = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=20, sampler="random", timeout_s=3600)
ELSEWHERE = Holder(host="far", place="far away", pid=1, born=1)


@pytest.fixture
def database(storage_url: str) -> Iterator[Engine]:
    engine = open_database(storage_url)
    yield engine
    engine.dispose()


def jump(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """Set this machine's clock, as Python sees it."""

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=days)

    monkeypatch.setattr(repository, "datetime", Jumped)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86400 * days)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_lease_does_not_care_for_the_clock_of_a_controller(
    database: Engine, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE), holder=ELSEWHERE)
    jump(monkeypatch, days)
    with pytest.raises(StudyHeldError, match="process 1 on far"):
        Repository(database).take_over("s", job_digest="j", job={})
    with database.begin() as connection:
        connection.execute(update(StudyRow).values(lease_expires_at=read_clock(connection) - timedelta(seconds=1)))
    taken = Repository(database).take_over("s", job_digest="j", job={})
    assert taken.holder == Holder.current()
    assert taken.lease_expires is not None
    with database.connect() as connection:
        left_s = (taken.lease_expires - read_clock(connection)).total_seconds()
    assert 0 < left_s <= lease.LEASE_S


def test_a_database_clock_that_was_set_back_holds_nobody_up_for_long(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE), holder=ELSEWHERE)
    with database.begin() as connection:
        connection.execute(update(StudyRow).values(lease_expires_at=read_clock(connection) + timedelta(days=400)))
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE)).close()


def test_a_jump_ends_no_search(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.open(CONFIG, Repository(database), SimulatedCosts(SPACE))
    jump(monkeypatch, 400)
    assert study.stop_reason is None
    assert study.elapsed_s < 600
    worker = SimulatedConfig(space=SPACE)()
    (request,) = study.ask()
    study.tell(worker.evaluate(request))
    study.close()
    assert Repository(database).trials(study.id)[0].quality is not None
