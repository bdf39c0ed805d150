"""Fault 1: workers are killed (-9) in mid-trial. Faults 3, 4, 5 ride along, as they share the run."""

from pathlib import Path

from controller.dispatch import RayOptions, search_on_ray
from controller.storage import AttemptOutcome, Repository, TrialState, open_database
from controller.study_config import StopReason, StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import Fault, SimulatedConfig, SimulatedCosts, simulated_space

SPACE = simulated_space(3)
KILLED, RAISED, NOT_A_NUMBER, NO_MEMORY, HUNG = 6, 15, 16, 17, 18


def test_a_killed_worker_costs_one_attempt_and_the_search_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/paretrim.db"
    strikes = tmp_path / "strikes"
    strikes.mkdir()
    faults = {
        KILLED: Fault.DIE,
        RAISED: Fault.RAISE,
        NOT_A_NUMBER: Fault.NAN,
        NO_MEMORY: Fault.OUT_OF_MEMORY,
        HUNG: Fault.HANG,
    }
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=20, sampler="random")
    progress = search_on_ray(
        StudyFactory(config=config, storage=url, cost_of=SimulatedCosts(SPACE)),
        SimulatedConfig(space=SPACE, seconds=0.05, faults=faults, fault_folder=strikes),
        RayOptions(parallel=2, trial_timeout_s=2.0),
    )
    assert (progress.stop, progress.trials_done, progress.failed) == (StopReason.TRIALS, 20, 4)

    database = open_database(url)
    repository = Repository(database)
    study = repository.find_study("s")
    assert study is not None
    trials = repository.trials(study.id)
    attempts = repository.attempts(study.id)
    database.dispose()
    lineage = [(a.outcome, a.reason) for a in attempts if a.trial == KILLED]
    assert lineage == [(AttemptOutcome.FAILED, "worker_died"), (AttemptOutcome.REPORTED, None)]
    assert trials[KILLED].state is TrialState.COMPLETE
    failed = {t.number: t.reason for t in trials if t.state is TrialState.FAIL}
    assert failed == {RAISED: "error", NOT_A_NUMBER: "non_finite_score", NO_MEMORY: "out_of_memory", HUNG: "timeout"}
    assert trials[HUNG].message == "no result within 2 s"
    assert all(t.state is TrialState.COMPLETE for t in trials if t.number not in failed)
    reported = [a.trial for a in attempts if a.outcome is AttemptOutcome.REPORTED]
    assert len(reported) == len(set(reported))
