"""Fault 3: out of memory is a typed failure; the policy is not tried again, and stays recorded as infeasible here."""

from pathlib import Path

import pytest
import torch

from controller.guard import evaluate_guarded
from controller.storage import AttemptOutcome, Repository, TrialState, open_database
from controller.study import Study
from controller.study_config import StudyConfig
from workers.protocol import FailureReason, TrialReport, TrialRequest
from workers.simulated import SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

SPACE = simulated_space(2)
_MORE_THAN_ANY_MACHINE = 1 << 55


class Greedy(SimulatedWorker):
    """Asks for more memory than there is, by numpy's way or torch's."""

    def __init__(self, by_torch: bool) -> None:
        super().__init__(SimulatedConfig(space=SPACE))
        self._by_torch = by_torch

    def evaluate(self, request: TrialRequest) -> TrialReport:
        if self._by_torch:
            torch.empty(_MORE_THAN_ANY_MACHINE, dtype=torch.uint8)
        return bytearray(_MORE_THAN_ANY_MACHINE)  # type: ignore[return-value]


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_policy_that_needs_too_much_memory_fails_once(tmp_path: Path, by_torch: bool) -> None:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    repository = Repository(database)
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=5, sampler="random")
    study = Study.open(config, repository, SimulatedCosts(SPACE))
    worker = SimulatedConfig(space=SPACE)()
    (dense,) = study.ask()
    study.tell(worker.evaluate(dense))
    (request,) = study.ask()
    study.tell(evaluate_guarded(Greedy(by_torch), request))

    trial = study.trials[request.trial]
    assert (trial.state, trial.reason) == (TrialState.FAIL, FailureReason.OUT_OF_MEMORY)
    attempts = [a for a in repository.attempts(study.id) if a.trial == request.trial]
    assert [a.outcome for a in attempts] == [AttemptOutcome.FAILED]
    while not study.finished:
        for other in study.ask():
            assert other.policy != request.policy
            study.tell(worker.evaluate(other))
    study.close()
    stored = repository.trials(study.id)[request.trial]
    assert (stored.state, stored.reason, stored.message) == (trial.state, trial.reason, trial.message)
    database.dispose()
