"""A study asks, takes results, stops, and goes on after a restart."""

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.dispatch import search_inline
from controller.front import cost_violations
from controller.job import Constraints, Objective
from controller.storage import (
    AttemptOutcome,
    Repository,
    StudyState,
    TellOutcome,
    TrialRecord,
    TrialRole,
    TrialState,
    open_database,
)
from controller.study import Study
from controller.study_config import (
    DenseModelError,
    StopReason,
    StudyConfig,
    StudyConflictError,
    TooManyFailuresError,
)
from search_spaces.space import SpaceConfig
from workers.protocol import FailureReason, TrialFailure, TrialReport, TrialRequest
from workers.simulated import Fault, SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

OpenStudy = Callable[..., Study]


def make_config(**changes: Any) -> StudyConfig:
    base: dict[str, Any] = {
        "name": "digits",
        "space": simulated_space(3),
        "evaluation_digest": "e",
        "trials": 12,
        "sampler": "random",
        "fixed": {"data": {"search": 512}},
    }
    return StudyConfig(**{**base, **changes})


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    yield Repository(database)
    database.dispose()


@pytest.fixture
def open_study(repository: Repository) -> OpenStudy:
    def open_it(config: StudyConfig | None = None, **changes: Any) -> Study:
        config = config or make_config(**changes)
        return Study.open(config, repository, SimulatedCosts(config.space))

    return open_it


def worker_for(study: Study, **changes: Any) -> SimulatedWorker:
    return SimulatedWorker(SimulatedConfig(space=study.config.space, **changes))


def failure(request: TrialRequest, reason: FailureReason) -> TrialFailure:
    return TrialFailure(trial=request.trial, attempt=request.attempt, reason=reason, message=f"as ordered: {reason}")


def score_baselines(study: Study) -> None:
    worker = worker_for(study)
    while study.progress().baselines_done < study.progress().baselines_total:
        for request in study.ask():
            study.tell(worker.evaluate(request))


def test_a_search_scores_baselines_and_then_what_was_asked_for(open_study: OpenStudy) -> None:
    study = open_study()
    progress = search_inline(study, worker_for(study))
    assert (progress.trials_done, progress.stop) == (12, StopReason.TRIALS)
    uniform = study.config.space.uniform_policies()
    baselines = [t for t in study.trials if t.role is TrialRole.BASELINE]
    assert [t.name for t in baselines] == ["dense", *uniform]
    assert all(t.state is TrialState.COMPLETE for t in study.trials)
    assert [t.number for t in study.trials] == list(range(len(study.trials)))
    assert progress.front
    assert progress.best is not None
    assert progress.hypervolume is not None
    assert progress.hypervolume > 0


def test_the_database_holds_what_the_study_holds(open_study: OpenStudy, repository: Repository) -> None:
    study = open_study()
    search_inline(study, worker_for(study))
    assert repository.trials(study.id) == [
        replace(t, finished=s.finished) for t, s in zip(study.trials, repository.trials(study.id), strict=True)
    ]
    record = repository.find_study("digits")
    assert record is not None
    assert record.state is StudyState.COMPLETE


def test_the_dense_model_goes_first_and_alone(open_study: OpenStudy) -> None:
    study = open_study()
    (dense,) = study.ask(5)
    assert dense.trial == 0
    assert dense.policy == study.config.space.dense_policy()
    assert study.ask(5) == []
    study.tell(worker_for(study).evaluate(dense))
    assert [request.trial for request in study.ask(3)] == [1, 2, 3]


def test_a_failed_dense_model_ends_the_search_and_is_tried_again_by_the_next(open_study: OpenStudy) -> None:
    study = open_study()
    (dense,) = study.ask()
    with pytest.raises(DenseModelError, match=r"must have a score; it failed \(error\): as ordered"):
        study.tell(failure(dense, FailureReason.ERROR))
    assert study.finished
    again = open_study()
    assert [request.trial for request in again.ask(4)] == [0]
    assert search_inline(open_study(), worker_for(again)).trials_done == 12


def test_a_dense_model_no_better_than_chance_ends_the_search(open_study: OpenStudy) -> None:
    study = open_study(chance_quality=0.9)
    with pytest.raises(DenseModelError, match=r"better than chance \(0.9\); got accuracy 0.9"):
        search_inline(study, worker_for(study))
    assert study.progress().hypervolume is None
    with pytest.raises(DenseModelError, match="better than chance"):
        open_study(chance_quality=0.9)


def test_a_worker_that_died_is_retried_once(open_study: OpenStudy, repository: Repository) -> None:
    study = open_study()
    score_baselines(study)
    (first,) = study.ask()
    study.tell(failure(first, FailureReason.WORKER_DIED))
    (second,) = study.ask()
    assert (second.trial, second.policy) == (first.trial, first.policy)
    assert second.attempt != first.attempt
    study.tell(failure(second, FailureReason.WORKER_DIED))
    assert study.trials[first.trial].state is TrialState.FAIL
    assert study.trials[first.trial].attempts == 2
    outcomes = [a.outcome for a in repository.attempts(study.id) if a.trial == first.trial]
    assert outcomes == [AttemptOutcome.FAILED, AttemptOutcome.FAILED]


@pytest.mark.parametrize("reason", [FailureReason.OUT_OF_MEMORY, FailureReason.TIMEOUT, FailureReason.ERROR])
def test_other_failures_are_final(open_study: OpenStudy, reason: FailureReason) -> None:
    study = open_study()
    score_baselines(study)
    (request,) = study.ask()
    study.tell(failure(request, reason))
    trial = study.trials[request.trial]
    assert (trial.state, trial.reason) == (TrialState.FAIL, reason)
    assert all(r.policy != request.policy for r in study.ask(20))


def test_scores_that_are_not_finite_are_a_failure(open_study: OpenStudy) -> None:
    study = open_study()
    score_baselines(study)
    (request,) = study.ask()
    report = worker_for(study, faults={request.trial: Fault.NAN}).evaluate(request)
    assert study.tell(report) is TellOutcome.ACCEPTED
    trial = study.trials[request.trial]
    assert (trial.state, trial.reason) == (TrialState.FAIL, FailureReason.NON_FINITE_SCORE)
    assert trial.message == "accuracy must be finite; got nan"
    assert trial.quality is None


def test_costs_by_another_table_are_a_failure(open_study: OpenStudy) -> None:
    study = open_study()
    score_baselines(study)
    (request,) = study.ask()
    report = worker_for(study).evaluate(request)
    costs = replace(report.scores.costs, latency_ms=2 * report.scores.costs.latency_ms)
    study.tell(TrialReport(trial=report.trial, attempt=report.attempt, scores=replace(report.scores, costs=costs)))
    assert "must read the same latency table" in str(study.trials[request.trial].message)


def test_most_trials_failing_stops_the_search_with_an_example_of_each_reason(open_study: OpenStudy) -> None:
    study = open_study(trials=100)
    (dense,) = study.ask()
    study.tell(worker_for(study).evaluate(dense))
    reasons = [FailureReason.ERROR] * 6 + [FailureReason.OUT_OF_MEMORY] * 3
    for reason in reasons:
        (request,) = study.ask()
        study.tell(failure(request, reason))
    (request,) = study.ask()
    with pytest.raises(TooManyFailuresError, match="10 of 11 trials failed") as caught:
        study.tell(failure(request, FailureReason.ERROR))
    assert "error (7): as ordered: error" in str(caught.value)
    assert "out_of_memory (3): as ordered: out_of_memory" in str(caught.value)
    assert study.finished


def test_a_policy_scored_by_another_study_needs_no_worker(open_study: OpenStudy) -> None:
    first = open_study()
    search_inline(first, worker_for(first))
    second = open_study(name="again", target_digest="another table")
    assert second.ask(50) == []
    progress = second.progress()
    assert progress.trials_done > 0
    assert second.trials[0].quality == first.trials[0].quality
    other_data = open_study(name="other", evaluation_digest="f")
    assert len(other_data.ask()) == 1


def test_policies_that_repeat_are_answered_and_a_small_space_ends_the_search(open_study: OpenStudy) -> None:
    study = open_study(space=simulated_space(1, SpaceConfig(keep=(1.0, 0.5, 0.0))), trials=500)
    progress = search_inline(study, worker_for(study))
    assert progress.stop is StopReason.EXHAUSTED
    own = [t for t in study.trials if t.repeat_of is None]
    assert len({t.policy for t in own}) == len(own) == study.config.space.size
    for repeat in (t for t in study.trials if t.repeat_of is not None):
        assert repeat.quality == study.trials[repeat.repeat_of].quality
    assert progress.trials_done == len(own) - progress.baselines_total


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_policies_that_cost_too_much_are_not_paid_for(open_study: OpenStudy, sampler: str) -> None:
    constraints = Constraints(max_latency_ms=1.2, max_quality_drop=0.3)
    study = open_study(constraints=constraints, sampler=sampler, trials=15)
    progress = search_inline(study, worker_for(study))
    assert progress.trials_done == 15
    assert progress.pruned > 0
    for trial in study.trials:
        over = cost_violations(trial.costs, constraints)["max_latency_ms"]
        if trial.state is TrialState.PRUNED:
            assert trial.violations["max_latency_ms"] == over > 0
            assert trial.quality is None
        elif trial.role is TrialRole.TRIAL:
            assert over <= 0
    assert all(m.latency_ms <= 1.2 for m in progress.front)


def test_a_constraint_that_nothing_meets_ends_the_search(open_study: OpenStudy) -> None:
    study = open_study(constraints=Constraints(max_size_bytes=1), trials=5, space=simulated_space(8))
    progress = search_inline(study, worker_for(study))
    assert (progress.stop, progress.trials_done, progress.front) == (StopReason.EXHAUSTED, 0, ())
    assert progress.pruned + progress.repeated == 100


def test_time_over_means_no_new_trials(open_study: OpenStudy) -> None:
    study = open_study(timeout_s=0.0)
    assert study.ask(5) == []
    assert search_inline(study, worker_for(study)).stop is StopReason.TIMEOUT


def test_what_was_interrupted_is_asked_first_and_does_not_count(open_study: OpenStudy, repository: Repository) -> None:
    study = open_study()
    score_baselines(study)
    worker = worker_for(study)
    requests = study.ask(4)
    study.tell(worker.evaluate(requests[1]))
    # The controller is gone without a word.
    again = open_study()
    asked = again.ask(4)
    assert [(r.trial, r.policy) for r in asked[:3]] == [(r.trial, r.policy) for r in (requests[0], *requests[2:])]
    assert {r.attempt for r in asked}.isdisjoint(r.attempt for r in requests)
    assert again.trials[requests[0].trial].attempts == 1
    left = [a for a in repository.attempts(study.id) if a.outcome is AttemptOutcome.INTERRUPTED]
    assert [a.trial for a in left] == [r.trial for r in (requests[0], *requests[2:])]
    assert again.tell(worker.evaluate(requests[0])) is TellOutcome.REJECTED
    with pytest.raises(ValueError, match="no attempt may be open when an inline search starts; got 4"):
        search_inline(again, worker)
    for request in asked:
        assert again.tell(worker.evaluate(request)) is TellOutcome.ACCEPTED
    search_inline(again, worker)
    assert again.progress().trials_done == 12


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_search_in_pieces_repeats_nothing(open_study: OpenStudy, repository: Repository, sampler: str) -> None:
    for trials in (5, 10, 25):
        study = open_study(sampler=sampler, trials=trials)
        search_inline(study, worker_for(study))
    reported = [a.trial for a in repository.attempts(study.id) if a.outcome is AttemptOutcome.REPORTED]
    assert len(reported) == len(set(reported))
    policies = [study.trials[number].policy for number in reported]
    assert len(policies) == len(set(policies))
    assert study.progress().trials_done == 25


def test_a_finished_study_is_finished_when_opened_again(open_study: OpenStudy) -> None:
    study = open_study()
    search_inline(study, worker_for(study))
    assert open_study().finished
    more = open_study(trials=14)
    assert not more.finished
    assert more.remaining == 2


def test_workers_may_be_told_to_stop(open_study: OpenStudy, repository: Repository) -> None:
    study = open_study()
    score_baselines(study)
    study.ask(2)
    study.stop()
    assert study.ask(1) == []
    assert not study.finished
    study.close()
    assert study.finished
    assert study.stop_reason is StopReason.INTERRUPTED
    record = repository.find_study("digits")
    assert record is not None
    assert record.state is StudyState.STOPPED
    assert [t.state for t in repository.trials(study.id)][-2:] == [TrialState.WAITING] * 2


def test_every_end_of_a_trial_is_heard(repository: Repository) -> None:
    heard: list[tuple[int, str]] = []

    def listen(study: Study, trial: TrialRecord) -> None:
        heard.append((trial.number, trial.state))
        study.outbox.put("trial", {"number": trial.number, "hypervolume": study.progress().hypervolume})

    config = make_config(trials=3)
    study = Study.open(config, repository, SimulatedCosts(config.space), listen)
    search_inline(study, worker_for(study))
    assert heard == [(t.number, t.state) for t in study.trials]
    volumes = [item.payload["hypervolume"] for item in study.outbox.pending(100)]
    assert all(not math.isnan(v) for v in volumes)
    assert volumes == sorted(volumes)


def test_the_job_is_kept_with_the_study(open_study: OpenStudy, repository: Repository) -> None:
    open_study(job={"name": "digits", "trials": 12}, job_digest="d1")
    open_study(job={"name": "digits", "trials": 40}, job_digest="d2", trials=40, timeout_s=9.0)
    record = repository.find_study("digits")
    assert record is not None
    assert (json.loads(record.job_json)["trials"], record.job_digest) == (40, "d2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed": {"data": {"search": 256}}}, "job.data.search: 512 before, now 256"),
        (
            {"fixed": {"data": {"search": 512}, "quality": "fidelity"}},
            'job.quality: "metric" before, now "fidelity"',
        ),
        ({"objectives": (Objective.QUALITY, Objective.SIZE_BYTES)}, r'objectives: \["quality", "latency_ms", "size_b'),
        ({"space": simulated_space(2)}, r"space.units.layer.2.feed_forward: \{.*before, now nothing"),
        ({"evaluation_digest": "f"}, 'evaluation: "e" before, now "f"'),
        ({"target_digest": "t"}, 'target: "" before, now "t"'),
    ],
)
def test_other_content_under_the_same_name_is_refused_with_the_difference(
    open_study: OpenStudy, changes: dict[str, Any], message: str
) -> None:
    open_study()
    with pytest.raises(StudyConflictError, match=message):
        open_study(**changes)


def test_a_study_of_jobs_without_a_word_on_quality_goes_on(open_study: OpenStudy) -> None:
    """It went by the metric; and what guessing is worth, its last digits apart, the data's digest tells."""
    open_study(fixed={"data": {"search": 512}, "chance_quality": 0.5123456789})
    open_study(fixed={"data": {"search": 512}, "quality": "metric", "chance_quality": 0.5123456790})


def test_a_new_study_scores_what_it_is_given_before_it_proposes(repository: Repository) -> None:
    config = make_config(trials=4, racing=False)
    space, costs = config.space, SimulatedCosts(config.space)
    generator = random.Random(0)
    given = [space.random_policy(generator) for _ in range(6)]
    study = Study.open(config, repository, costs, None, [space.dense_policy(), given[0], *given])
    baselines = len(space.uniform_policies()) + 1
    assert [trial.policy for trial in study.trials[baselines:]] == given[:4]
    assert {trial.role for trial in study.trials[baselines:]} == {TrialRole.TRIAL}
    search_inline(study, worker_for(study))
    done = [trial for trial in study.trials if trial.role is TrialRole.TRIAL]
    assert [trial.policy for trial in done] == given[:4]
    assert study.stop_reason is StopReason.TRIALS
    again = Study.open(config, repository, costs, None, [space.smallest_policy()])
    assert len(again.trials) == len(study.trials)
