"""Fault 6: where most trials fail the search stops early, and says why, each reason with one example."""

from pathlib import Path

import pytest

from controller.dispatch import search_inline
from controller.storage import Repository, StudyState, open_database
from controller.study import Study
from controller.study_config import StudyConfig, TooManyFailuresError
from workers.simulated import Fault, SimulatedConfig, SimulatedCosts, simulated_space

SPACE = simulated_space(4)


def test_failures_are_grouped_by_reason(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    repository = Repository(database)
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=100, sampler="random")
    study = Study.open(config, repository, SimulatedCosts(SPACE))
    faults = {n: Fault.OUT_OF_MEMORY if n % 3 == 0 else Fault.RAISE for n in range(6, 200)}
    with pytest.raises(TooManyFailuresError) as caught:
        search_inline(study, SimulatedConfig(space=SPACE, faults=faults)())
    head, *groups = str(caught.value).splitlines()
    seen = study.progress()
    failed, finished = seen.failed, seen.baselines_done + seen.trials_done
    assert head == f"{failed} of {finished} trials failed, so the search has stopped:"
    assert 10 <= failed < 30
    assert [line.split(":")[0].split(" (")[0].strip() for line in groups] == ["error", "out_of_memory"]
    assert "RuntimeError: ordered by the simulation" in groups[0]
    assert "MemoryError: ordered by the simulation" in groups[1]
    found = repository.find_study("s")
    assert found is not None
    assert found.state is StudyState.STOPPED
    database.dispose()
