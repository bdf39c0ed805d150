"""Fault 29: workers that no node can hold. Ray would wait for ever."""

from pathlib import Path

import pytest

from controller.dispatch import RayOptions, search_on_ray
from controller.errors import PreflightError
from controller.study_config import StudyConfig
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_space

SPACE = simulated_space(2)


def test_more_than_any_node_has_is_refused(tmp_path: Path) -> None:
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", trials=5)
    url = f"sqlite:///{tmp_path}/paretrim.db"
    factory = StudyFactory(config=config, storage=url, cost_of=SimulatedCosts(SPACE))
    options = RayOptions(gpus_per_worker=4096)
    with pytest.raises(PreflightError, match=r"needs 4096 GPU, and the largest node has \d+; lower gpus_per_worker"):
        search_on_ray(factory, SimulatedConfig(space=SPACE), options)
    assert not (tmp_path / "paretrim.db").exists()
