"""Fault 2: a result comes late, for an attempt that was given up already."""

import logging
from pathlib import Path

import pytest

from controller.storage import Repository, TellOutcome, TrialState, open_database
from controller.study import Study
from controller.study_config import StudyConfig
from workers.protocol import FailureReason, TrialFailure
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space


def test_a_late_result_is_rejected_logged_and_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    space = simulated_space(2)
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    config = StudyConfig(name="s", space=space, evaluation_digest="e", trials=5)
    study = Study.open(config, Repository(database), SimulatedCosts(space))
    worker = SimulatedConfig(space=space)()
    (dense,) = study.ask()
    study.tell(worker.evaluate(dense))
    (first,) = study.ask()
    gone = TrialFailure(trial=first.trial, attempt=first.attempt, reason=FailureReason.WORKER_DIED, message="silent")
    study.tell(gone)
    (second,) = study.ask()
    assert second.trial == first.trial

    with caplog.at_level(logging.WARNING):
        assert study.tell(worker.evaluate(first)) is TellOutcome.REJECTED
    assert "attempt 1 had been given up (silent)" in caplog.text
    assert study.trials[first.trial].state is TrialState.RUNNING
    assert study.tell(worker.evaluate(second)) is TellOutcome.ACCEPTED
    assert study.tell(worker.evaluate(second)) is TellOutcome.REPEATED
    assert study.tell(worker.evaluate(first)) is TellOutcome.REJECTED
    assert study.trials[first.trial].state is TrialState.COMPLETE
    assert study.progress().baselines_done == 2
    database.dispose()
