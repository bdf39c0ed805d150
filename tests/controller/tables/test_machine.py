"""Formats follow the device that latencies are for: a GPU told by what the driver says of it, and CPUs."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.errors import PreflightError
from controller.job import JobSpec
from controller.planning import plan
from controller.preparation import describe, price
from controller.retargeting.job import retargeted_job
from controller.retargeting.target_change import TargetChange
from controller.sensitivity.sweep_report import check_sweep
from controller.tables.machine import formats_here
from controller.tables.measuring import measure_table
from controller.tables.profiling import run_calibration, run_profile, run_space_profile
from evaluators.latency.table import Fingerprint, LatencyTable, load_table
from evaluators.latency.workload import Operator
from workers.profile import ProfileBudget, required_operators
from workers.profiling.threads import usable_cpus
from workers.quantization.linear import has_int8_products
from workers.targets import TARGETS, TargetConfig, torch_cuda
from workers.targets.torch_cuda import TorchCuda, check_format
from workers.trial import space_of

A100 = ("bf16", "fp16", "fp32", "w4a16", "w8", "w8a8r")
WHY = r"it needs compute capability 8.9, NVIDIA A100 has 8.0"
GetGpu = Callable[..., None]


@dataclass
class _Timed:
    """A whole model that always takes as long."""

    time_ms: float

    def sample(self, *, runs: int) -> list[float]:
        return [self.time_ms] * runs


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> GetGpu:
    """Makes torch and the driver tell of a GPU; kernels that it lacks fail, others take what their sizes say."""

    def put_in(name: str = "NVIDIA A100", capability: tuple[int, int] = (8, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(torch_cuda, "_uuid", lambda: None)

    def sample(self: TorchCuda, operator: Operator, *, runs: int, **settings: Any) -> list[float]:
        check_format(operator, torch.cuda.get_device_capability(0))
        return [1e-3 * math.prod(size for _, size in operator.axes) ** 0.5] * runs

    times = iter(range(1, 10**6))
    monkeypatch.setattr(TorchCuda, "sample", sample)
    monkeypatch.setattr(TorchCuda, "whole_model", lambda *given: _Timed(1.0 + 0.1 * next(times)))
    budget = ProfileBudget(rounds=2, max_rounds=2, runs=2)
    monkeypatch.setattr("controller.tables.measuring.ProfileBudget", lambda seconds: replace(budget, seconds=seconds))
    monkeypatch.setattr("controller.tables.measuring.MODELS_BY_BYTES", ((2**30, 3),))
    return put_in


def _job(tiny: Any, folder: Path, formats: tuple[str, ...] | None = None, **target: object) -> JobSpec:
    return JobSpec(
        name="demo",
        model=tiny.model,
        data=tiny.data,
        space={"keep": (1.0, 0.5), "formats": formats},
        target={"name": "cuda-torch", "sequence_length": tiny.sequence_length, **target},
        storage=f"sqlite:///{folder / 'studies.db'}",
    )


def _profile(tiny: Any, out: Path) -> LatencyTable:
    target = TargetConfig(name="cuda-torch", sequence_length=tiny.sequence_length)
    run_profile(tiny.model, target, out, lambda progress: None)
    return load_table(out)


def _formats(job: JobSpec) -> set[str]:
    return {name for unit in describe(job).space.unit_spaces for name in unit.formats}


def test_targets_name_the_formats_that_the_device_has_no_kernel_for(gpu: GetGpu) -> None:
    gpu()
    assert f"cuda-torch: fp8 has no kernel here: {WHY}" in " ".join(CliRunner().invoke(app, ["targets"]).stdout.split())
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["targets", "--json"]).stdout)["targets"]}
    assert rows["cuda-torch"]["no_kernels_here"] == {"fp8": WHY}
    assert "fp8" in rows["cuda-torch"]["formats"]
    assert rows["cpu-onnxruntime"]["no_kernels_here"] == {}
    gpu("NVIDIA H100", (9, 0))
    assert "no kernel here" not in CliRunner().invoke(app, ["targets"]).stdout.split("cuda-torch")[-1]


def test_a_model_is_profiled_and_calibrated_on_a_gpu_without_kernels_for_all_formats(
    gpu: GetGpu, tiny_text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu()
    table = _profile(tiny_text, tmp_path / "t.json")
    assert {entry.operator.format for entry in table.entries} - {None} == set(A100)
    calibrated = run_calibration(
        tmp_path / "t.json", lambda progress: None, model=tiny_text.model, sequence_length=tiny_text.sequence_length
    )
    assert len(calibrated.models) == 3
    job = _job(tiny_text, tmp_path, table=tmp_path / "t.json", allow_foreign_table=True)
    here = describe(job)
    assert price(job, here, lambda stage, done, total: None).foreign == ()
    # Planning with the table is the same wherever it is done.
    for other in (("NVIDIA H100", (9, 0)), ("Tesla T4", (7, 5))):
        gpu(*other)
        assert describe(job).space == here.space
        assert price(job, describe(job), lambda stage, done, total: None).foreign
    assert "fp8" not in _formats(job)


def test_a_job_that_names_no_formats_gets_those_of_the_gpu_that_it_is_measured_on(
    gpu: GetGpu, tiny_text: Any, tmp_path: Path
) -> None:
    gpu()
    job = _job(tiny_text, tmp_path)
    description = describe(job)
    assert _formats(job) == set(A100)
    # Workers, which may have no GPU, span the same space.
    gpu("Tesla T4", (7, 5))
    assert space_of(description.spec, description.structure) == description.space
    gpu("NVIDIA H100", (9, 0))
    assert _formats(job) == {*A100, "fp8"}
    assert describe(job).spec.space == job.space


@pytest.mark.parametrize(
    "space",
    [{"formats": ("bf16", "fp8")}, {"override": ({"units": "*.attention", "formats": ("fp8",)},)}],
    ids=["space", "override"],
)
def test_a_named_format_without_a_kernel_is_refused_before_anything_is_measured(
    gpu: GetGpu, tiny_text: Any, tmp_path: Path, space: dict[str, Any]
) -> None:
    gpu()
    job = _job(tiny_text, tmp_path).model_copy(update={"space": type(tiny_text.space).model_validate(space)})
    known = "fp32, bf16, fp16, w8a8r, w4a16, w8"
    with pytest.raises(PreflightError, match=rf"'fp8' has none: {WHY}; choose from {known}, or plan"):
        describe(job)


def test_a_table_from_elsewhere_keeps_the_formats_of_its_device(gpu: GetGpu, tiny_text: Any, tmp_path: Path) -> None:
    gpu("NVIDIA H100", (9, 0))
    _profile(tiny_text, tmp_path / "t.json")
    gpu()
    job = _job(tiny_text, tmp_path, table=tmp_path / "t.json", allow_foreign_table=True)
    assert "fp8" in _formats(job)
    named = _job(tiny_text, tmp_path, ("bf16", "fp8"), table=tmp_path / "t.json", allow_foreign_table=True)
    assert price(named, describe(named), lambda stage, done, total: None).foreign


def test_a_study_moves_to_a_gpu_with_the_formats_that_it_has(gpu: GetGpu, tiny_text: Any, tmp_path: Path) -> None:
    gpu()
    _profile(tiny_text, tmp_path / "a100.json")
    gpu("NVIDIA H100", (9, 0))
    job = _job(tiny_text, tmp_path, ("bf16", "fp8"))
    moved = retargeted_job(job, TargetChange(table=tmp_path / "a100.json", allow_foreign_table=True))
    assert moved.space.formats == ("bf16",)


def test_a_sweep_tries_the_formats_of_the_gpu(gpu: GetGpu, tiny_text: Any, tmp_path: Path) -> None:
    gpu()
    request = check_sweep(_job(tiny_text, tmp_path), keep=(0.5,), max_drop=None, format=None)
    assert set(request.formats) == set(A100)


def test_a_model_in_a_format_without_a_kernel_is_refused(gpu: GetGpu, tiny_text: Any, tmp_path: Path) -> None:
    gpu("NVIDIA H100", (9, 0))
    request = describe(_job(tiny_text, tmp_path, ("fp32", "fp8"))).request(())
    gpu()
    with pytest.raises(PreflightError, match=rf"'fp8' has none: {WHY}; set space.formats to some of fp32, bf16"):
        measure_table(request, lambda stage, done, total: None)
    assert not request.out.exists()


def test_int8_of_torch_needs_a_cpu_that_multiplies_it(
    tiny_text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TargetConfig(name="cpu-torch", sequence_length=tiny_text.sequence_length)
    assert ("w8a8" in formats_here(target)) == has_int8_products()
    monkeypatch.setattr("workers.targets.cpu.cpu_model", lambda: ("Old CPU", ("avx2", "fma")))
    assert formats_here(target) == ("fp32", "bf16", "w8")
    assert formats_here(target.model_copy(update={"name": "cpu-onnxruntime"})) == TARGETS.get("cpu-onnxruntime").formats
    job = _job(tiny_text, tmp_path, name="cpu-torch")
    assert "w8a8" not in _formats(job)
    with pytest.raises(PreflightError, match=r"'w8a8' has none: it needs a CPU with VNNI .*Old CPU has none; choose"):
        describe(_job(tiny_text, tmp_path, ("w8a8",), name="cpu-torch"))


def test_what_a_fingerprint_does_not_tell_is_not_lacking() -> None:
    silent = Fingerprint(device="d", runtime="r", runtime_version="1", threads=1, os="o")
    for name in TARGETS:
        known = TARGETS.get(name)
        assert known.lacking is None or known.lacking(silent) == {}


def test_more_threads_than_cpus_are_not_timed(tiny_text: Any, tmp_path: Path) -> None:
    threads, out = usable_cpus() + 1, tmp_path / "t.json"
    words = ["profile", "--model", tiny_text.model.id, "--sequence-length", "8", "--threads", threads, "--out", out]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == ExitCode.PREFLIGHT
    message = " ".join(done.stderr.split())
    assert f"got {threads} threads, and this process may use {usable_cpus()} CPUs; take fewer" in message
    assert not out.exists()


def test_more_threads_than_cpus_are_found_before_a_search(tiny_text: Any, tmp_path: Path) -> None:
    job = _job(tiny_text, tmp_path, ("fp32", "w8a8"), name="cpu-onnxruntime", threads=usable_cpus() + 1)
    path, planned = tmp_path / "job.json", tmp_path / "planned.json"
    path.write_text(json.dumps(job.model_dump(mode="json", exclude_unset=True)))
    done = CliRunner().invoke(app, ["validate", str(path)])
    assert done.exit_code == ExitCode.PREFLIGHT
    assert f"this process may use {usable_cpus()} CPUs; take fewer" in " ".join(done.stderr.split())
    target = job.target.model_copy(update={"table": tiny_text.table, "allow_foreign_table": True})
    planned.write_text(json.dumps(job.model_copy(update={"target": target}).model_dump(mode="json")))
    done = CliRunner().invoke(app, ["validate", str(planned)])
    assert done.exit_code == 0, done.stderr


def test_what_is_measured_already_needs_no_cpus(
    tiny_text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: GetGpu
) -> None:
    job = _job(tiny_text, tmp_path, ("fp32",), name="cpu-torch")
    request = describe(job).request(())
    request = replace(request, operators=required_operators(request.space, request.workload))
    measured = measure_table(request, lambda stage, done, total: None)
    monkeypatch.setattr("controller.tables.machine.usable_cpus", lambda: 0)
    assert measure_table(request, lambda stage, done, total: None) == measured
    assert plan(job).dense_latency_ms is not None
    with pytest.raises(PreflightError, match="may use 0 CPUs"):
        run_calibration(request.out, lambda progress: None, job=job)


def test_threads_of_the_host_launch_graphs_and_need_no_cpu_each(gpu: GetGpu, tiny_text: Any, tmp_path: Path) -> None:
    gpu()
    job = _job(tiny_text, tmp_path, ("fp32", "fp16"), threads=usable_cpus() + 1)
    assert run_space_profile(job, lambda progress: None).entries
