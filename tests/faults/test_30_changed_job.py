"""Fault 30: a study is continued with another space, other objectives or other data."""

from dataclasses import replace
from pathlib import Path

import pytest

from controller.cli.errors import exit_code_of
from controller.cli.exit_codes import ExitCode
from controller.job import Objective
from controller.storage import Repository, open_database
from controller.study import Study
from controller.study_config import StudyConfig, StudyConflictError
from search_spaces.space import SpaceConfig
from workers.simulated import SimulatedCosts, simulated_space

SPACE = simulated_space(2)
CONFIG = StudyConfig(name="s", space=SPACE, evaluation_digest="data 1", trials=20, sampler="random")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"space": simulated_space(3)}, "space.units.layer.2.feed_forward: nothing before, now"),
        (
            {"space": simulated_space(2, SpaceConfig(formats=("fp32",)))},
            r"formats: \[.*w8a8.*\] before, now \[.fp32.\]",
        ),
        ({"objectives": (Objective.QUALITY, Objective.SIZE_BYTES)}, r"objectives: \[.*latency_ms.*\] before, now"),
        ({"evaluation_digest": "data 2"}, 'evaluation: "data 1" before, now "data 2"'),
        ({"target_digest": "table 2"}, 'target: "" before, now "table 2"'),
    ],
)
def test_the_difference_is_shown_and_nothing_changes(
    tmp_path: Path, changes: dict[str, object], difference: str
) -> None:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    repository = Repository(database)
    Study.open(CONFIG, repository, SimulatedCosts(SPACE)).close()
    before = repository.find_study("s")
    with pytest.raises(StudyConflictError, match=difference) as caught:
        Study.open(replace(CONFIG, **changes), repository, SimulatedCosts(SPACE))
    assert "give the job another name" in str(caught.value)
    assert exit_code_of(caught.value) is ExitCode.USAGE
    assert repository.find_study("s") == before
    database.dispose()


def test_other_words_for_the_flags_of_a_foreign_table_are_no_change(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    repository = Repository(database)
    before = ["device: 'A' there, 'B' here", "flags: ('avx2', 'fma') there, ('avx2',) here"]
    told = replace(CONFIG, fixed={"foreign_table": before})
    Study.open(told, repository, SimulatedCosts(SPACE)).close()
    now = replace(CONFIG, fixed={"foreign_table": [before[0], "flags: fma only there"]})
    Study.open(now, repository, SimulatedCosts(SPACE)).close()
    with pytest.raises(StudyConflictError, match="foreign_table"):
        Study.open(replace(CONFIG, fixed={"foreign_table": []}), repository, SimulatedCosts(SPACE))
    database.dispose()


def test_keys_of_the_job_come_first_and_units_are_counted(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    repository = Repository(database)
    told = replace(CONFIG, fixed={"space": {"formats": ["fp32", "w8a8"]}})
    Study.open(told, repository, SimulatedCosts(SPACE)).close()
    now = {"space": simulated_space(2, SpaceConfig(formats=("fp32",))), "fixed": {"space": {"formats": ["fp32"]}}}
    with pytest.raises(StudyConflictError) as caught:
        Study.open(replace(CONFIG, evaluation_digest="data 2", **now), repository, SimulatedCosts(SPACE))
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == [
        'job.space.formats: ["fp32", "w8a8"] before, now ["fp32"]',
        'evaluation: "data 1" before, now "data 2"',
        "space: 2 choices of single units",
    ]
    database.dispose()
