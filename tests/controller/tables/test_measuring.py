"""Tables of a tiny model, measured on this machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from controller.errors import PreflightError
from controller.job import JobSpec
from controller.preparation import describe, price, price_by_table
from controller.results import Progress
from controller.tables.measuring import TableRequest, calibrate, holds, measure_table
from controller.tables.profiling import run_calibration, run_profile, run_space_profile
from controller.tables.trust import trust_notes
from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.table import CorrectionBasis, Fingerprint, ForeignTableError, LatencyTable, load_table
from search_spaces.space import SpaceConfig, build_space
from workers import profile as profile_module
from workers.profile import ProfileBudget, required_operators
from workers.profiling.whole import MIN_ROUNDS
from workers.trial import space_of, workload_of

FIT = Correction(scale=1.1, overhead_ms=0.1, models=5, median_error_pct=1.0, max_error_pct=2.0)


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
    # With no time at all each model is timed the fewest rounds that there are.
    stages: list[str] = []
    hasty = run_calibration(path, lambda progress: stages.append(progress.stage), job=job, minutes=1e-6)
    assert {model.name for model in hasty.models} == names
    assert sum(stage.startswith("timing whole models") for stage in stages) == MIN_ROUNDS * len(names)


@pytest.mark.slow
def test_a_short_time_still_gives_a_table_for_all_policies(quick, tiny_image, tmp_path: Path) -> None:
    from workers.targets import TargetConfig

    target = TargetConfig(sequence_length=tiny_image.sequence_length)
    summary = run_profile(tiny_image.model, target, tmp_path / "t.json", lambda progress: None, minutes=0.001)
    assert summary.correction_models >= 2
    request = _request(tiny_image, tmp_path)
    table = load_table(tmp_path / "t.json")
    LatencyPredictor(table, request.workload).check(required_operators(request.space, request.workload))


@pytest.mark.slow
def test_a_correction_is_fitted_again_when_its_rows_or_the_space_change_and_not_else(
    quick, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[Progress] = []
    monkeypatch.setattr("controller.tables.measuring.MODELS_IN_HASTE", 2)
    first = run_space_profile(job, stages.append, minutes=1e-6)
    assert first.correction_models == 2
    assert any("profiling, which takes" in progress.stage for progress in stages)
    assert any("fitted on 2 whole models of 3, as time was over" in note for note in first.notes)
    assert any("min where 1e-06 were given" in note for note in first.notes)
    second = run_space_profile(job, stages.append, out=first.table)
    assert second.correction_models == 3
    assert not any("as time was over" in note for note in second.notes if "whole models" in note)
    wider = job.model_copy(update={"space": SpaceConfig(keep=(1.0, 0.5), formats=("fp32", "w8a8", "w4"))})
    for searched, refitted in ((job, False), (wider, True), (wider, False), (job, False)):
        stages.clear()
        written = first.table.read_bytes()
        run_space_profile(searched, stages.append, out=first.table)
        assert any("timing whole models" in progress.stage for progress in stages) is refitted
        assert (first.table.read_bytes() == written) is not refitted
    (stored,) = load_table(first.table).corrections
    assert any(name.endswith(" w4") for name in stored.basis.covered)


def _narrow(request: TableRequest) -> TableRequest:
    """The request for a space of the dense policy alone."""
    config = SpaceConfig(keep=(1.0,), formats=("fp32",))
    space = build_space(request.space.structure, config, target_formats=("fp32",), channel_multiple=1)
    return replace(request, space=space)


def _corrected(request: TableRequest, table: LatencyTable, *, wanted: int = 5) -> LatencyTable:
    """The table with a correction as if it had been fitted for the request."""
    predictor = LatencyPredictor(table, request.workload)
    times_ms = {o: predictor.operator_ms(o) for o in required_operators(request.space, request.workload)}
    basis = CorrectionBasis.of(request.space, times_ms, wanted=wanted)
    return table.with_correction(request.workload, FIT, basis)


def test_a_correction_holds_for_its_rows_its_space_and_all_of_its_models(tiny_image, tmp_path: Path) -> None:
    request, table = _request(tiny_image, tmp_path), load_table(tiny_image.table)
    corrected = _corrected(request, table)
    assert holds(request, corrected, grew=True)
    assert not holds(request, _corrected(request, table, wanted=12), grew=False)
    slower = [e.model_copy(update={"median_ms": 2 * e.median_ms}) for e in corrected.entries]
    assert not holds(request, corrected.model_copy(update={"entries": tuple(slower)}), grew=False)
    assert not holds(request, _corrected(_narrow(request), table), grew=False)
    assert holds(_narrow(request), corrected, grew=False)
    unsaid = table.with_correction(request.workload, FIT)
    assert holds(request, unsaid, grew=False)
    assert not holds(request, unsaid, grew=True)


def test_what_weakens_a_table_for_a_space_is_said(tiny_image, tmp_path: Path) -> None:
    request, table = _request(tiny_image, tmp_path), load_table(tiny_image.table)
    corrected = _corrected(request, table)
    assert trust_notes(corrected, request.space, request.workload) == ()
    (note,) = trust_notes(_corrected(request, table, wanted=12), request.space, request.workload)
    assert "fitted on 5 whole models of 12" in note
    (note,) = trust_notes(_corrected(_narrow(request), table), request.space, request.workload)
    assert "fitted on a narrower space, without attention fp32" in note
    (stored,) = corrected.corrections
    basis = stored.basis.model_copy(update={"model": "other-1"})
    others = corrected.model_copy(update={"corrections": (stored.model_copy(update={"basis": basis}),)})
    (note,) = trust_notes(others, request.space, request.workload)
    assert "corrections are of other models (batch 1, 17 tokens of other-1)" in note
    large = [e.model_copy(update={"working_set_bytes": 64 * 2**20}) for e in corrected.entries]
    (note,) = trust_notes(corrected.model_copy(update={"entries": tuple(large)}), request.space, request.workload)
    assert "were timed for a model of another size, with 64 MiB of weights in the caches" in note


def test_a_table_of_another_target_is_no_price_list_of_a_job(tiny_image, job: JobSpec, tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    load_table(tiny_image.table).model_copy(update={"target": "board"}).save(path)
    planned = job.model_copy(update={"target": job.target.model_copy(update={"table": path})})
    with pytest.raises(ForeignTableError, match=r"target: 'board' there, 'cpu-onnxruntime' here"):
        price_by_table(planned, describe(planned))


def test_a_space_of_one_policy_has_no_correction(tiny_image, tmp_path: Path) -> None:
    request = _request(tiny_image, tmp_path)
    # An earlier correction is not shown as if it were new.
    table = _corrected(request, load_table(tiny_image.table))
    with pytest.raises(PreflightError, match=r"two or more policies; the space has 1; offer more"):
        calibrate(_narrow(request), table, lambda stage, done, total: None)


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
