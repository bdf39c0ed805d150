"""Tables of a tiny model, measured on this machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from controller.errors import PreflightError
from controller.job import JobSpec
from controller.preparation import describe, price
from controller.results import Progress
from controller.tables.measuring import TableRequest, calibrate, measure_table
from controller.tables.profiling import run_calibration, run_profile, run_space_profile
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.table import Fingerprint, ForeignTableError, LatencyTable, load_table
from search_spaces.space import SpaceConfig
from workers import profile as profile_module
from workers.profile import ProfileBudget, required_operators
from workers.trial import space_of, workload_of


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few runs: what is measured is looked at here, not how well."""
    budget = ProfileBudget(rounds=2, max_rounds=2, runs=2)
    monkeypatch.setattr("controller.tables.measuring.ProfileBudget", lambda seconds: replace(budget, seconds=seconds))
    monkeypatch.setattr("controller.tables.measuring.MODELS_BY_BYTES", ((2**30, 3),))
    assert profile_module.ProfileBudget is ProfileBudget


@pytest.fixture
def job(tiny_image, tmp_path: Path) -> JobSpec:
    return JobSpec(
        name="tiny",
        model=tiny_image.model,
        data=tiny_image.data,
        space=SpaceConfig(keep=(1.0, 0.5), formats=("fp32", "w8a8")),
        storage=f"sqlite:///{tmp_path}/paretrim.db",
    )


def test_a_space_is_profiled_into_the_file_of_its_search_and_resumed_at_once(quick, job: JobSpec) -> None:
    stages: list[Progress] = []
    first = run_space_profile(job, stages.append)
    description = describe(job)
    assert first.table == description.table.absolute()
    table = load_table(first.table)
    assert (first.entries, first.added) == (len(table.entries), len(table.entries))
    assert first.correction_models == 3
    assert any("timing whole models" in progress.stage for progress in stages)
    written = first.table.read_bytes()
    assert run_space_profile(job, stages.append).added == 0
    priced = price(job, description, lambda stage, done, total: None)
    assert first.table.read_bytes() == written
    assert priced.costs.costs(description.space.dense_policy()).latency_ms > 0


@pytest.mark.slow
def test_a_table_is_calibrated_anew(quick, job: JobSpec) -> None:
    path = run_space_profile(job, lambda progress: None).table
    calibrated = run_calibration(path, lambda progress: None, job=job)
    names = {model.name for model in calibrated.models}
    assert names > {"dense", "smallest"}
    assert len(names) == 3
    assert len(load_table(path).corrections) == 1


@pytest.mark.slow
def test_a_short_time_still_gives_a_table_for_all_policies(quick, tiny_image, tmp_path: Path) -> None:
    from workers.targets import TargetConfig

    target = TargetConfig(sequence_length=tiny_image.sequence_length)
    summary = run_profile(tiny_image.model, target, tmp_path / "t.json", lambda progress: None, minutes=0.001)
    assert summary.correction_models >= 2
    request = _request(tiny_image, tmp_path)
    table = load_table(tmp_path / "t.json")
    LatencyPredictor(table, request.workload).check(required_operators(request.space, request.workload))


def test_a_calibration_for_calls_that_were_not_measured_names_the_command(tiny_image, tmp_path: Path) -> None:
    with pytest.raises(
        MissingEntryError, match=r"measure with: paretrim profile --model \S*tiny-vit\S*/model .*--batch 3"
    ) as caught:
        run_calibration(tiny_image.table, lambda progress: None, model=tiny_image.model, batch=3)
    assert "--sequence-length" not in str(caught.value)


def test_a_file_that_cannot_be_written_is_found_before_anything_is_measured(job: JobSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stages: list[Progress] = []
    with pytest.raises(PreflightError, match=r"a table is saved while it is measured; .*can't be written to"):
        run_space_profile(job, stages.append, out=tmp_path / "file" / "t.json")
    assert stages == []


def test_a_table_of_another_device_is_not_calibrated(tiny_image, tmp_path: Path) -> None:
    table = load_table(tiny_image.table)
    foreign = table.model_copy(
        update={"fingerprint": Fingerprint.model_validate({**table.fingerprint.model_dump(), "device": "elsewhere"})}
    )
    with pytest.raises(ForeignTableError, match="device: 'elsewhere' there"):
        calibrate(_request(tiny_image, tmp_path), foreign, lambda stage, done, total: None)


def test_a_table_without_the_operators_of_a_space_is_not_calibrated(tiny_image, tmp_path: Path) -> None:
    table: LatencyTable = load_table(tiny_image.table)
    small = table.model_copy(update={"entries": table.entries[:1]})
    with pytest.raises(MissingEntryError, match="measure with: paretrim profile"):
        calibrate(_request(tiny_image, tmp_path), small, lambda stage, done, total: None)


def test_a_target_that_is_not_here_is_refused(tiny_image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.targets.base import Target

    monkeypatch.setattr(Target, "available", lambda self: "no such runtime")
    with pytest.raises(PreflightError, match="can't be timed on this machine: no such runtime"):
        measure_table(_request(tiny_image, tmp_path), lambda stage, done, total: None)


def _request(tiny, folder: Path) -> TableRequest:
    from workers.model import load_structure

    structure = load_structure(tiny.model)
    spec = tiny.spec(folder)
    space, workload = space_of(spec, structure), workload_of(spec.target, structure)
    return TableRequest(
        model=tiny.model, target=spec.target, space=space, workload=workload, operators=(), out=folder / "out.json"
    )
