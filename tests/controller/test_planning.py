"""What a plan says of where latencies come from."""

from pathlib import Path
from typing import Any

import pytest

from controller.job import JobSpec
from controller.planning import plan
from evaluators.latency import shipped
from evaluators.latency.correction import Correction
from evaluators.latency.table import load_table
from workers.model import load_structure
from workers.targets import TargetConfig
from workers.trial import workload_of

FIT = Correction(scale=1.0, overhead_ms=0.0, models=8, median_error_pct=2.0, max_error_pct=5.0)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Tables that come with the package."""
    found = tmp_path / "tables"
    found.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", found)
    return found


@pytest.fixture
def job(tiny_image: Any, tmp_path: Path) -> JobSpec:
    """A job whose machine is not measured yet."""
    spec = tiny_image.spec(tmp_path)
    return JobSpec(
        name="plan",
        model=spec.model,
        data=spec.data,
        space=spec.space,
        target=TargetConfig(name=spec.target.name, batch=spec.target.batch, threads=spec.target.threads),
        storage=f"sqlite:///{tmp_path}/paretrim.db",
    )


def test_a_table_of_the_package_that_would_do_is_named(job: JobSpec, tiny_image: Any, folder: Path) -> None:
    assert plan(job).table_source == "none yet: `paretrim search` measures this machine first"
    table = load_table(tiny_image.table)
    workload = workload_of(job.target, load_structure(job.model))
    mark = table.fingerprint.model_copy(update={"device": "another"})
    table.save(folder / "a-uncorrected.json")
    table.model_copy(update={"fingerprint": mark}).with_correction(workload, FIT).save(folder / "b-elsewhere.json")
    few = table.model_copy(update={"entries": table.entries[:1]})
    few.with_correction(workload, FIT).save(folder / "c-lacking.json")
    assert plan(job).table_source == "none yet: `paretrim search` measures this machine first"
    table.with_correction(workload, FIT).save(folder / "d-fitting.json")
    source = plan(job).table_source
    assert source.endswith("; `target: {table: shipped:d-fitting}` takes one that comes with Paretrim and holds here")
    taken = job.model_copy(update={"target": job.target.model_copy(update={"table": Path("shipped:d-fitting")})})
    assert plan(taken).dense_latency_ms is not None
