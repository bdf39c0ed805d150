"""Studies, trials and attempts, each written once."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from controller.storage import (
    AttemptOutcome,
    DatabaseOutbox,
    Repository,
    StudyLostError,
    StudyRecord,
    StudyState,
    TellOutcome,
    TrialRecord,
    TrialRole,
    TrialState,
    open_database,
)
from controller.storage.quality import decode_per_example, encode_per_example
from controller.storage.schema import OutboxRow
from evaluators.scores import Costs, Quality
from search_spaces.policy import Choice, Policy

QUALITY = Quality(metric="accuracy", value=0.75, per_example=(1.0, 0.0, 1.0, 1.0), kl_to_dense=0.1, seconds=2.5)
POLICY = Policy({"layer.0": Choice(4, "w8a8")})


def waiting(number: int, policy: Policy = POLICY) -> TrialRecord:
    return TrialRecord(
        number=number,
        role=TrialRole.TRIAL,
        name=f"trial {number}",
        policy=policy,
        state=TrialState.WAITING,
        costs=Costs(latency_ms=1.5, size_bytes=5_000_000_000),
        sampler_attributes={"generation": 3},
    )


def running(number: int, token: str, attempts: int = 1) -> TrialRecord:
    trial = waiting(number)
    return TrialRecord(
        **{name: getattr(trial, name) for name in ("number", "role", "name", "policy", "costs", "sampler_attributes")},
        state=TrialState.RUNNING,
        attempt=token,
        attempts=attempts,
        started=datetime.now(UTC),
    )


@pytest.fixture
def repository(storage_url: str) -> Iterator[Repository]:
    database = open_database(storage_url)
    yield Repository(database)
    database.dispose()


@pytest.fixture
def study(repository: Repository) -> StudyRecord:
    return repository.create_study(
        name="digits",
        job_digest="j1",
        job={"name": "digits"},
        fixed_json="{}",
        space_digest="s1",
        objectives=["quality", "latency_ms"],
        trials=[waiting(0)],
    )


def test_a_study_is_found_as_it_was_created(repository: Repository, study: StudyRecord) -> None:
    assert repository.find_study("digits") == study
    assert repository.studies() == [study]
    assert study.objectives == ("quality", "latency_ms")
    assert study.created.tzinfo is UTC
    assert repository.find_study("other") is None
    assert repository.trials(study.id) == [waiting(0)]


def test_a_trial_comes_back_with_all_that_was_told(repository: Repository, study: StudyRecord) -> None:
    repository.start_attempt(study, running(0, "a"), worker="slot 1")
    outcome = repository.complete(study, "a", QUALITY, evaluation_digest="e", split="search")
    assert outcome is TellOutcome.ACCEPTED
    (trial,) = repository.trials(study.id)
    assert (trial.state, trial.quality, trial.metric) == (TrialState.COMPLETE, 0.75, "accuracy")
    assert (trial.kl_to_dense, trial.seconds, trial.attempts) == (0.1, 2.5, 1)
    assert trial.costs == Costs(latency_ms=1.5, size_bytes=5_000_000_000)
    assert trial.sampler_attributes == {"generation": 3}
    assert trial.started is not None
    assert trial.finished is not None
    assert trial.started <= trial.finished
    (attempt,) = repository.attempts(study.id)
    assert (attempt.outcome, attempt.worker, attempt.ordinal) == (AttemptOutcome.REPORTED, "slot 1", 1)


def test_telling_twice_counts_once(repository: Repository, study: StudyRecord) -> None:
    repository.start_attempt(study, running(0, "a"), worker="w")
    repository.complete(study, "a", QUALITY, evaluation_digest="e", split="search")
    before = repository.trials(study.id)
    other = Quality(metric="accuracy", value=0.1, per_example=(), kl_to_dense=0.0, seconds=0.0)
    assert repository.complete(study, "a", other, evaluation_digest="e", split="search") is TellOutcome.REPEATED
    assert repository.fail(study, "a", reason="error", message="", retry=False) is TellOutcome.REPEATED
    assert repository.trials(study.id) == before


def test_an_unknown_attempt_is_rejected(
    repository: Repository, study: StudyRecord, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        outcome = repository.complete(study, "nobody", QUALITY, evaluation_digest="e", split="search")
    assert outcome is TellOutcome.REJECTED
    assert "attempt 'nobody' is unknown" in caplog.text


def test_a_failure_waits_for_its_retry_or_is_final(repository: Repository, study: StudyRecord) -> None:
    repository.start_attempt(study, running(0, "a"), worker="w")
    repository.fail(study, "a", reason="worker_died", message="gone", retry=True)
    assert repository.trials(study.id)[0].state is TrialState.WAITING
    repository.start_attempt(study, running(0, "b", attempts=2), worker="w")
    repository.fail(study, "b", reason="worker_died", message="gone again", retry=False)
    (trial,) = repository.trials(study.id)
    assert (trial.state, trial.reason, trial.message) == (TrialState.FAIL, "worker_died", "gone again")
    assert [(a.ordinal, a.message) for a in repository.attempts(study.id)] == [(1, "gone"), (2, "gone again")]


def test_taking_over_interrupts_open_attempts_and_shuts_the_former_controller_out(
    repository: Repository, study: StudyRecord
) -> None:
    repository.start_attempt(study, running(0, "a"), worker="w")
    taken = repository.take_over("digits", job_digest="j2", job={"trials": 9})
    assert (taken.fence, taken.job_digest, taken.job_json) == (2, "j2", '{"trials":9}')
    (trial,) = repository.trials(study.id)
    assert (trial.state, trial.attempts) == (TrialState.WAITING, 0)
    assert repository.attempts(study.id)[0].outcome is AttemptOutcome.INTERRUPTED
    with pytest.raises(StudyLostError, match="this one is number 1, the newest 2; stop this one"):
        repository.complete(study, "a", QUALITY, evaluation_digest="e", split="search")
    assert repository.complete(taken, "a", QUALITY, evaluation_digest="e", split="search") is TellOutcome.REJECTED
    repository.set_state(taken, StudyState.STOPPED)
    found = repository.find_study("digits")
    assert found is not None
    assert found.state is StudyState.STOPPED


def test_a_paid_score_is_kept_for_every_study(repository: Repository, study: StudyRecord) -> None:
    store = repository.quality_store("e")
    assert store.get(POLICY.digest, "search") is None
    repository.start_attempt(study, running(0, "a"), worker="w")
    repository.complete(study, "a", QUALITY, evaluation_digest="e", split="search")
    assert store.get(POLICY.digest, "search") == QUALITY
    assert store.all_of("search") == {POLICY.digest: QUALITY}
    assert store.get(POLICY.digest, "holdout") is None
    assert store.get(POLICY.digest, "search", rung=1) == QUALITY
    assert repository.quality_store("other").get(POLICY.digest, "search") is None


def test_the_first_score_stays(repository: Repository) -> None:
    store = repository.quality_store("e")
    store.put("p", "holdout", QUALITY)
    store.put("p", "holdout", Quality(metric="accuracy", value=0.0, per_example=(), kl_to_dense=0.0, seconds=0.0))
    assert store.get("p", "holdout") == QUALITY


@given(st.lists(st.floats(allow_nan=False), max_size=50).map(tuple))
def test_scores_of_examples_are_packed_without_loss(values: tuple[float, ...]) -> None:
    assert decode_per_example(encode_per_example(values)) == values


def test_binary_scores_take_little_room() -> None:
    assert len(encode_per_example(tuple(float(i % 3 == 0) for i in range(512)))) < 100


def test_the_outbox_keeps_order_and_forgets_what_was_sent(repository: Repository, study: StudyRecord) -> None:
    outbox = DatabaseOutbox(repository.engine, study.id)
    for step in range(3):
        outbox.put("metric", {"step": step})
    assert [item.payload["step"] for item in outbox.pending(2)] == [0, 1]
    outbox.mark_sent([item.id for item in outbox.pending(2)])
    outbox.mark_sent([1])
    assert [(item.kind, item.payload) for item in outbox.pending(9)] == [("metric", {"step": 2})]
    with pytest.raises(ValueError, match="not JSON compliant"):
        outbox.put("metric", {"value": float("nan")})


def test_a_moment_without_a_zone_is_refused(repository: Repository, study: StudyRecord) -> None:
    naive = datetime(2026, 1, 1)
    row = OutboxRow(study_id=study.id, kind="k", payload_json="{}", created_at=naive)
    with Session(repository.engine) as session:
        session.add(row)
        with pytest.raises(StatementError, match="a moment needs a time zone"):
            session.flush()


def test_a_score_on_a_rung_is_kept_beside_the_one_on_the_whole_split(repository: Repository) -> None:
    store = repository.quality_store("e")
    partial = replace(QUALITY, value=0.5, rung=1, share=0.125)
    store.put(POLICY.digest, "search", partial)
    assert store.get(POLICY.digest, "search") is None
    assert store.get(POLICY.digest, "search", rung=0) is None
    assert store.get(POLICY.digest, "search", rung=1) == partial
    assert store.all_of("search") == {}
    store.put(POLICY.digest, "search", QUALITY)
    assert store.all_of("search") == {POLICY.digest: QUALITY}
    assert store.get(POLICY.digest, "search", rung=1) == QUALITY


def test_an_estimate_of_a_trial_that_stopped_early_is_its_own(repository: Repository, study: StudyRecord) -> None:
    repository.start_attempt(study, running(0, "a"), worker="w")
    estimate = replace(QUALITY, per_example=(), share=0.3)
    assert repository.complete(study, "a", estimate, evaluation_digest="e", split="search") is TellOutcome.ACCEPTED
    (trial,) = repository.trials(study.id)
    assert (trial.state, trial.stopped_early, trial.share, trial.quality) == (TrialState.PRUNED, True, 0.3, 0.75)
    assert repository.quality_store("e").get(POLICY.digest, "search") is None
    assert repository.quality_store("e").get(POLICY.digest, "search", rung=0) is None


def test_a_probe_is_complete_on_its_rung(repository: Repository, study: StudyRecord) -> None:
    repository.start_attempt(study, replace(running(0, "a"), rung=1), worker="w")
    partial = replace(QUALITY, rung=1, share=0.125)
    assert repository.complete(study, "a", partial, evaluation_digest="e", split="search") is TellOutcome.ACCEPTED
    (trial,) = repository.trials(study.id)
    assert (trial.state, trial.stopped_early, trial.rung, trial.share) == (TrialState.COMPLETE, False, 1, 0.125)
    assert repository.quality_store("e").get(POLICY.digest, "search", rung=1) == partial
