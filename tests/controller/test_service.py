"""The service hands out batches, misses slots that fall silent, and gives their work to others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.service import SearchError, SlotProcess, StaleSlotError, StudyService, WorkerStartError
from controller.storage import AttemptOutcome, Repository, StudyLostError, TrialState, open_database
from controller.study import Study
from controller.study_config import DenseModelError, StopReason, StudyConfig
from workers.protocol import FailureReason, TrialFailure, TrialRequest
from workers.simulated import SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

SPACE = simulated_space(3)
HERE = SlotProcess(node_id="n", pid=11)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    yield Repository(database)
    database.dispose()


@pytest.fixture
def study(repository: Repository) -> Study:
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=60, sampler="random")
    return Study.open(config, repository, SimulatedCosts(SPACE))


@pytest.fixture
def service(study: Study, clock: Clock) -> StudyService:
    return StudyService(study, grace_s=10.0, clock=clock)


def score(service: StudyService, request: TrialRequest, clock: Clock, seconds: float, slot: str = "a") -> None:
    clock.now += seconds
    service.tell(slot, 1, SimulatedWorker(SimulatedConfig(space=SPACE)).evaluate(request))


def test_a_batch_is_about_two_seconds_of_work(service: StudyService, clock: Clock) -> None:
    service.register("a", HERE)
    (dense,) = service.take("a", 1).requests
    score(service, dense, clock, 0.25)
    batch = service.take("a", 1).requests
    assert len(batch) == 8
    for request in batch:
        score(service, request, clock, 30.0)
    assert len(service.take("a", 1).requests) == 1


def test_other_slots_wait_for_the_dense_model(service: StudyService) -> None:
    service.register("a", HERE)
    service.register("b", HERE)
    assert len(service.take("a", 1).requests) == 1
    work = service.take("b", 1)
    assert (work.requests, work.stop) == ((), False)


def test_a_new_process_of_a_slot_gives_up_what_the_former_held(
    service: StudyService, study: Study, repository: Repository, clock: Clock
) -> None:
    service.register("a", HERE)
    score(service, service.take("a", 1).requests[0], clock, 0.4)
    batch = service.take("a", 1).requests
    assert service.register("a", HERE) == 2
    attempts = {a.token: a for a in repository.attempts(study.id)}
    assert attempts[batch[0].attempt].reason == FailureReason.WORKER_DIED
    assert {attempts[r.attempt].outcome for r in batch[1:]} == {AttemptOutcome.INTERRUPTED}
    assert service.take("a", 2).requests[0].trial in {r.trial for r in batch}
    with pytest.raises(StaleSlotError, match="slot a was silent"):
        service.take("a", 1)


def test_what_a_dead_worker_held_is_handed_out_one_by_one(service: StudyService, clock: Clock) -> None:
    service.register("a", HERE)
    score(service, service.take("a", 1).requests[0], clock, 0.25)
    held = service.take("a", 1).requests
    assert len(held) == 8
    service.register("a", HERE)
    again = []
    for _ in held:
        (request,) = service.take("a", 2).requests
        again.append(request.trial)
        service.tell("a", 2, SimulatedWorker(SimulatedConfig(space=SPACE)).evaluate(request))
    assert sorted(again) == sorted(request.trial for request in held)
    assert len(service.take("a", 2).requests) > 1


def test_a_silent_slot_is_condemned_and_its_trial_retried(service: StudyService, study: Study, clock: Clock) -> None:
    service.register("a", HERE)
    service.register("b", SlotProcess(node_id="n", pid=12))
    score(service, service.take("a", 1).requests[0], clock, 4.0)
    (request,) = service.take("a", 1).requests
    for _ in range(3):
        clock.now += 5.0
        service.beat("b", 1)
        snapshot = service.snapshot()
    assert snapshot.condemned == (HERE,)
    assert service.snapshot().condemned == ()
    (again,) = service.take("b", 1).requests
    assert again.trial == request.trial
    service.tell("a", 1, SimulatedWorker(SimulatedConfig(space=SPACE)).evaluate(request))
    assert study.trials[request.trial].state is TrialState.RUNNING
    service.beat("a", 1)
    with pytest.raises(StaleSlotError, match="silent for more than 10 s"):
        service.take("a", 1)


def test_a_beating_slot_may_take_its_time(service: StudyService, clock: Clock) -> None:
    service.register("a", HERE)
    assert service.take("a", 1).requests
    for _ in range(20):
        clock.now += 9.0
        service.beat("a", 1)
        assert service.snapshot().condemned == ()


def test_workers_that_can_not_start_end_the_search(service: StudyService) -> None:
    service.register("a", HERE)
    service.broken("a", "FileNotFoundError: no such model")
    assert service.take("a", 1).stop
    snapshot = service.snapshot()
    assert snapshot.finished
    assert isinstance(snapshot.error, WorkerStartError)
    assert "slot a: FileNotFoundError: no such model" in str(snapshot.error)


def test_workers_that_die_before_they_work_end_the_search(service: StudyService) -> None:
    for _ in range(6):
        service.register("a", HERE)
    assert isinstance(service.snapshot().error, WorkerStartError)


def test_what_ends_the_study_reaches_the_driver(service: StudyService) -> None:
    service.register("a", HERE)
    (dense,) = service.take("a", 1).requests
    failure = TrialFailure(trial=0, attempt=dense.attempt, reason=FailureReason.ERROR, message="no kernel")
    service.tell("a", 1, failure)
    assert isinstance(service.snapshot().error, DenseModelError)
    assert service.take("a", 1).stop


def test_a_study_taken_over_ends_the_search(service: StudyService, repository: Repository) -> None:
    service.register("a", HERE)
    repository.take_over("s", job_digest="", job={})
    service.take("a", 1)
    assert isinstance(service.snapshot().error, StudyLostError)
    assert isinstance(service.close().error, StudyLostError)


def test_errors_of_libraries_are_told_in_words(service: StudyService, repository: Repository) -> None:
    service.register("a", HERE)
    with repository.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE attempts")
    service.take("a", 1)
    error = service.snapshot().error
    assert isinstance(error, SearchError)
    assert "no such table: attempts" in str(error)


def test_after_stop_nothing_more_is_handed_out(service: StudyService, study: Study, clock: Clock) -> None:
    service.register("a", HERE)
    (dense,) = service.take("a", 1).requests
    service.stop()
    assert not service.snapshot().finished
    score(service, dense, clock, 1.0)
    assert service.take("a", 1).stop
    closed = service.close()
    assert closed.finished
    assert closed.progress.stop is StopReason.INTERRUPTED
    assert study.trials[0].state is TrialState.COMPLETE
