"""Row 25: constraints that no policy can meet are found from the table before any trial, with the nearest bound."""

import re

import pytest

from controller.errors import PreflightError
from controller.job import Constraints, JobSpec
from controller.planning import plan
from controller.preparation import cheapest, describe, price
from controller.search import run_search
from controller.storage.engine import open_database
from controller.storage.repository import Repository
from evaluators.latency.correction import Correction
from evaluators.latency.table import EnergyBasis, load_table


@pytest.fixture
def job(tiny_image, tmp_path):
    spec = tiny_image.spec(tmp_path)
    return JobSpec(
        name="bounds",
        model=spec.model,
        data=spec.data,
        space=spec.space,
        target=spec.target,
        storage=f"sqlite:///{tmp_path}/paretrim.db",
    )


def bounded(job, **bounds):
    return job.model_copy(update={"constraints": Constraints(**bounds)})


def nearest(message):
    return float(re.findall(r"takes at least ([\d.e-]+) ms", message)[0])


def test_search_refuses_before_any_trial_and_names_the_nearest_bound(job):
    with pytest.raises(PreflightError, match=r"max_latency_ms is 1e-06, and every policy takes at least") as caught:
        run_search(bounded(job, max_latency_ms=1e-6), lambda progress: None)
    assert Repository(open_database(job.storage)).find_study("bounds") is None
    bound = nearest(str(caught.value)) * 1.001
    assert price(bounded(job, max_latency_ms=bound), describe(job), lambda *stage: None)


def test_size_too(job):
    with pytest.raises(PreflightError, match=r"max_size_bytes is 10, and the smallest policy has [\d,]+ bytes"):
        price(bounded(job, max_size_bytes=10), describe(job), lambda *stage: None)


def test_validate_says_so_without_an_error(job):
    found = plan(bounded(job, max_latency_ms=1e-6, max_size_bytes=10))
    assert not found.constraints_reachable
    assert len(found.unreachable) == 2


def test_what_is_counted_is_known_before_there_is_a_table(job):
    untimed = job.model_copy(update={"target": job.target.model_copy(update={"table": None})})
    found = plan(bounded(untimed, max_latency_ms=1e-6, max_size_bytes=10, max_peak_memory_bytes=8))
    assert found.dense_energy_mj is None
    assert len(found.unreachable) == 2
    assert found.dense_peak_memory_bytes > found.min_peak_memory_bytes > 8
    assert f"every policy holds {found.min_peak_memory_bytes:,} at least" in found.unreachable[1]


def test_energy_and_memory_of_the_dense_model_are_those_that_trials_are_told(job):
    found = plan(job)
    priced = price(job, describe(job), lambda *stage: None)
    dense = priced.costs.costs(priced.description.space.dense_policy())
    assert (found.dense_energy_mj, found.energy_basis) == (dense.energy_mj, EnergyBasis.ESTIMATED)
    assert found.dense_peak_memory_bytes == dense.peak_memory_bytes
    assert 0 < found.min_energy_mj < found.dense_energy_mj


def test_a_prediction_has_an_interval_where_the_table_tells_its_error(job, tmp_path):
    plain = price(job, describe(job), lambda *stage: None)
    uncorrected = plan(job)
    assert uncorrected.dense_low_ms is None
    assert "plain sums of operators" in uncorrected.latency_sentence
    fit = Correction(scale=1.0, overhead_ms=0.0, models=8, median_error_pct=2.0, max_error_pct=25.0)
    path = tmp_path / "corrected.json"
    load_table(job.target.table).with_correction(plain.description.workload, fit).save(path)
    corrected = job.model_copy(update={"target": job.target.model_copy(update={"table": path})})
    found = plan(corrected)
    assert (found.dense_low_ms, found.dense_high_ms) == pytest.approx(fit.interval(found.dense_latency_ms))
    assert found.dense_high_ms > found.dense_latency_ms * 1.25
    assert f"90 % of measured times are expected within {fit.margin_pct:.1f} % of them" in found.latency_sentence
    assert found.latency_margin_pct == pytest.approx(fit.margin_pct)


def test_the_nearest_bound_is_that_of_a_real_policy(job):
    priced = price(job, describe(job), lambda *stage: None)
    space = priced.description.space
    best_ms = min(
        priced.costs.costs(policy).latency_ms
        for policy in (space.smallest_policy(), space.dense_policy(), *space.uniform_policies().values())
    )
    assert cheapest(priced)[0] <= best_ms * (1 + 1e-9)
