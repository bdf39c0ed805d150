"""Row 18: a table from other hardware, runtime or thread count is refused, or taken for planning and marked."""

import pytest

from evaluators.latency.table import (
    Entry,
    Fingerprint,
    ForeignTableError,
    LatencyTable,
    Provenance,
    check_fingerprint,
)
from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.units import ModelStructure
from workers.profile import ProfileBudget, profile
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu

RELU = Operator.of(OperatorKind.ACTIVATION, function="relu", tokens=2, features=8)
STRUCTURE = ModelStructure(architecture="x", units=(), fixed=(), fixed_bytes=0)


def table(measured: Fingerprint, target: str = "cpu-onnxruntime") -> LatencyTable:
    row = Entry(
        kind=RELU.kind,
        function=RELU.function,
        axes=dict(RELU.axes),
        median_ms=1.0,
        spread_ms=0.0,
        repeats=1,
        working_set_bytes=0,
    )
    provenance = Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=1)
    return LatencyTable(target=target, fingerprint=measured, provenance=provenance, entries=(row,))


CHANGES = [
    ({"device": "another CPU"}, "device: 'another CPU' there"),
    ({"flags": ("avx9",)}, "flags: avx9 only there, .* only here"),
    ({"runtime": "tensorrt"}, "runtime: 'tensorrt' there, 'onnxruntime' here"),
    ({"runtime_version": "0.1"}, "runtime_version: '0.1' there"),
    ({"threads": 64}, "threads: 64 there, 1 here"),
    ({"driver": "550.54"}, "driver: '550.54' there, None here"),
    ({"os": "Plan 9"}, "os: 'Plan 9' there"),
]


@pytest.mark.parametrize(("change", "difference"), CHANGES)
def test_a_foreign_table_is_refused_with_the_difference(change, difference):
    here = OnnxRuntimeCpu(1).fingerprint()
    foreign = table(here.model_copy(update=change))
    with pytest.raises(ForeignTableError, match=f"{difference}.*paretrim profile.*--allow-foreign-table"):
        check_fingerprint(foreign, here)


def test_a_table_of_another_target_with_the_same_fingerprint_is_refused():
    here = OnnxRuntimeCpu(1).fingerprint()
    difference = "target: 'cpu-onnxruntime' there, 'board' here"
    with pytest.raises(ForeignTableError, match=rf"{difference}.*--allow-foreign-table"):
        check_fingerprint(table(here), here, target="board")
    assert check_fingerprint(table(here), here, target="board", allow_foreign=True) == (difference,)
    assert check_fingerprint(table(here), here, target="cpu-onnxruntime") == ()


@pytest.mark.parametrize(("change", "difference"), CHANGES)
def test_for_planning_it_is_taken_and_the_differences_are_returned(change, difference):
    here = OnnxRuntimeCpu(1).fingerprint()
    (found,) = check_fingerprint(table(here.model_copy(update=change)), here, allow_foreign=True)
    assert found.split(":")[0] == next(iter(change))


def test_only_flags_that_differ_are_named():
    here = OnnxRuntimeCpu(1).fingerprint().model_copy(update={"flags": ("avx2", "f16c", "fma")})
    (more,) = here.model_copy(update={"flags": ("amx", "avx2", "avx9", "f16c", "fma")}).differences(here)
    (other,) = here.model_copy(update={"flags": ("avx2", "avx9", "fma")}).differences(here)
    assert (more, other) == ("flags: amx avx9 only there", "flags: avx9 only there, f16c only here")


def test_a_table_from_here_has_no_differences():
    assert check_fingerprint(table(OnnxRuntimeCpu(2).fingerprint()), OnnxRuntimeCpu(2).fingerprint()) == ()


@pytest.mark.parametrize(
    ("measured", "target", "difference"),
    [
        (
            OnnxRuntimeCpu(1).fingerprint().model_copy(update={"device": "another CPU"}),
            "cpu-onnxruntime",
            "device: 'another CPU'",
        ),
        (OnnxRuntimeCpu(3).fingerprint(), "cpu-onnxruntime", "threads: 3 there, 1 here"),
        (OnnxRuntimeCpu(1).fingerprint(), "another-target", "target: 'another-target' there"),
    ],
)
def test_a_foreign_file_is_not_added_to(tmp_path, measured, target, difference):
    path = tmp_path / "table.json"
    table(measured, target).save(path)
    before = path.read_bytes()
    with pytest.raises(ForeignTableError, match=f"{difference}.*name another file"):
        profile([RELU], STRUCTURE, target="cpu-onnxruntime", threads=1, out=path, budget=ProfileBudget(rounds=1))
    assert path.read_bytes() == before
