"""Fault 4: a metric that is NaN or infinite is a typed failure, on all examples, on a rung and in a race."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.guard import evaluate_guarded
from controller.storage import Repository, TrialState, open_database
from controller.study import Study
from controller.study_config import StudyConfig
from evaluators.scores import Quality, Scores
from workers.protocol import FailureReason, TrialReport, TrialRequest
from workers.simulated import Fault, SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

SPACE = simulated_space(3)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    yield Repository(database)
    database.dispose()


@pytest.fixture
def study(repository: Repository) -> Study:
    """A study whose baselines are scored, so that trials race."""
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=20, sampler="random", examples=64)
    study = Study.open(config, repository, SimulatedCosts(SPACE))
    worker = SimulatedWorker(SimulatedConfig(space=SPACE))
    while study.progress().baselines_done < study.progress().baselines_total:
        for request in study.ask():
            study.tell(worker.evaluate(request))
    return study


def racing_request(study: Study) -> TrialRequest:
    while True:
        for request in study.ask():
            if request.bar is not None:
                return request
            study.tell(SimulatedWorker(SimulatedConfig(space=SPACE)).evaluate(request))


def check_failed(study: Study, request: TrialRequest, repository: Repository, message: str) -> None:
    trial = study.trials[request.trial]
    assert (trial.state, trial.reason, trial.quality) == (TrialState.FAIL, FailureReason.NON_FINITE_SCORE, None)
    assert message in str(trial.message)
    assert repository.quality_store("e").get(request.policy.digest, "search", rung=0) is None
    assert request.trial not in {member.number for member in study.progress().front}


@pytest.mark.parametrize("rung", [None, 0])
def test_a_worker_that_scores_nan(study: Study, repository: Repository, rung: int | None) -> None:
    request = racing_request(study)
    faults = {request.trial: Fault.NAN}
    worker = SimulatedWorker(SimulatedConfig(space=SPACE, faults=faults, races=True))
    study.tell(evaluate_guarded(worker, replace(request, rung=rung)))
    check_failed(study, request, repository, "accuracy must be finite; got nan")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_report_that_is_not_finite(study: Study, repository: Repository, value: float, share: float) -> None:
    request = racing_request(study)
    quality = Quality(metric="accuracy", value=value, per_example=(), kl_to_dense=0.0, seconds=0.0, share=share)
    scores = Scores(quality=quality, costs=SimulatedCosts(SPACE)(request.policy))
    study.tell(TrialReport(trial=request.trial, attempt=request.attempt, scores=scores))
    check_failed(study, request, repository, f"accuracy must be finite; got {value}")
