"""Fault 32: huge spaces and ten thousand trials: pages, and work for a trial that does not grow with their number."""

import tracemalloc
from pathlib import Path
from typing import Any

from sqlalchemy import event, insert

from controller.storage import Repository, TrialRecord, TrialRole, TrialState, open_database
from controller.storage.rows import trial_values
from controller.storage.schema import TrialRow
from controller.study import Study
from controller.study_config import StudyConfig
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space


def test_ten_thousand_trials_are_read_in_pages(tmp_path: Path) -> None:
    space = simulated_space(20)
    cost_of = SimulatedCosts(space)
    dense = space.dense_policy()
    costs = cost_of(dense)
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    repository = Repository(database)
    record = repository.create_study(
        name="s", job_digest="j", job={}, fixed_json="{}", space_digest="d", objectives=["quality"]
    )
    first = TrialRecord(
        number=0, role=TrialRole.TRIAL, name="trial", policy=dense, state=TrialState.COMPLETE, quality=0.5, costs=costs
    )
    values = trial_values(record.id, first)
    with database.begin() as connection:
        connection.execute(insert(TrialRow.__table__), [{**values, "number": n} for n in range(10_000)])

    tracemalloc.start()
    try:
        numbers = [trial.number for page in repository.pages(record.id) for trial in page]
        _, in_pages = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        kept = repository.trials(record.id)
        _, at_once = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    database.dispose()
    assert numbers == list(range(10_000))
    assert len(kept) == 10_000
    # What stays of the pages are their numbers.
    assert in_pages < at_once / 4


def test_a_trial_takes_as_many_statements_late_as_early(tmp_path: Path) -> None:
    """400 parameters, and a space of 10 to the power of hundreds of policies."""
    space = simulated_space(200)
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    config = StudyConfig(name="s", space=space, evaluation_digest="e", trials=300, sampler="nsga2", racing=False)
    study = Study.open(config, Repository(database), SimulatedCosts(space))
    worker = SimulatedConfig(space=space)()
    statements = 0

    def count(*_arguments: Any) -> None:
        nonlocal statements
        statements += 1

    event.listen(database, "before_cursor_execute", count)
    taken: list[int] = []
    while not study.finished:
        statements = 0
        for request in study.ask():
            study.tell(worker.evaluate(request))
        taken.append(statements)
    event.remove(database, "before_cursor_execute", count)
    study.close()
    database.dispose()
    assert study.progress().trials_done == 300
    assert sum(taken[200:300]) <= 1.1 * sum(taken[10:110])
