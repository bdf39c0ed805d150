"""Searches with real worker processes under Ray Tune."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from controller.dispatch import RayOptions, search_on_ray
from controller.errors import PreflightError
from controller.progress import StudyProgress
from controller.service import WorkerStartError
from controller.study_config import DenseModelError, StopReason, StudyConfig, StudyConflictError
from controller.study_factory import StudyFactory
from workers.simulated import SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

SPACE = simulated_space(3)


def factory(folder: Path, **changes: object) -> StudyFactory:
    config = StudyConfig(**{"name": "s", "space": SPACE, "evaluation_digest": "e", "trials": 30, **changes})
    return StudyFactory(config=config, storage=f"sqlite:///{folder}/paretrim.db", cost_of=SimulatedCosts(SPACE))


def test_two_slots_search_and_leave_nothing_behind(tmp_path: Path) -> None:
    seen: list[StudyProgress] = []
    journal = tmp_path / "journal"
    make_study = factory(tmp_path)
    progress = search_on_ray(
        make_study,
        SimulatedConfig(space=SPACE, seconds=0.02, journal=journal),
        RayOptions(parallel=2),
        on_progress=seen.append,
    )
    assert (progress.stop, progress.trials_done, progress.failed) == (StopReason.TRIALS, 30, 0)
    assert progress.baselines_done == progress.baselines_total
    evaluated = sorted(map(int, journal.read_text().split()))
    assert evaluated == [t.number for t in make_study().trials if t.attempts]
    assert [p.trials_done for p in seen] == sorted(p.trials_done for p in seen)
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    """A Ray that the searches of this module find running, and must leave running."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=2**27,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


def no_worker() -> SimulatedWorker:
    raise NotADirectoryError("no model here")


@pytest.mark.usefixtures("running_ray")
class TestErrors:
    """What ends a search before its time."""

    def test_a_worker_that_can_not_be_built(self, tmp_path: Path) -> None:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            with pytest.raises(WorkerStartError, match="slot 0: NotADirectoryError: no model here"):
                search_on_ray(factory(tmp_path), no_worker, RayOptions())
        finally:
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        assert ray.is_initialized()

    def test_a_dense_model_no_better_than_chance(self, tmp_path: Path) -> None:
        make_study = factory(tmp_path, chance_quality=0.95)
        with pytest.raises(DenseModelError, match="better than chance"):
            search_on_ray(make_study, SimulatedConfig(space=SPACE), RayOptions())
        with pytest.raises(DenseModelError, match="better than chance"):
            make_study()

    def test_a_study_that_can_not_be_opened(self, tmp_path: Path) -> None:
        factory(tmp_path)()
        with pytest.raises(StudyConflictError, match='evaluation: "e" before, now "f"'):
            search_on_ray(factory(tmp_path, evaluation_digest="f"), SimulatedConfig(space=SPACE), RayOptions())

    def test_a_worker_that_fits_no_node(self, tmp_path: Path) -> None:
        with pytest.raises(PreflightError, match=r"needs 1 GPU, and the largest node has 0; lower gpus_per_worker"):
            search_on_ray(factory(tmp_path), SimulatedConfig(space=SPACE), RayOptions(gpus_per_worker=1))
