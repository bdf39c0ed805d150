"""What every target must do, run on each that is available here."""

from pathlib import Path
from typing import Any

import pytest

from evaluators.latency.workload import Operator, OperatorKind, Workload
from search_spaces.formats import FORMATS, LayerType
from search_spaces.policy import Choice, Policy
from workers.assemble import Assembler
from workers.model import load_model
from workers.targets.base import TARGETS, ExportForm
from workers.targets.device import DEVICES, Device, KernelError
from workers.variants import VariantMaker

AVAILABLE = [name for name in TARGETS if TARGETS.get(name).available() is None]
COMPILING = "cpu-torch-compiled"
slow_to_compile = pytest.mark.parametrize(
    "target",
    [pytest.param(name, marks=[pytest.mark.slow] if name == COMPILING else []) for name in AVAILABLE],
    indirect=True,
)


@pytest.fixture(params=AVAILABLE)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def device(target: str) -> Device:
    return DEVICES.get(target)(1)


def linear(format_name: str) -> Operator:
    return Operator.of(OperatorKind.LINEAR, format=format_name, tokens=9, in_features=64, out_features=48)


@pytest.mark.parametrize("name", list(TARGETS))
def test_every_target_declares_what_it_is(name: str) -> None:
    target = TARGETS.get(name)
    assert target.name == name
    assert target.formats[0] == "fp32"
    assert all(format_name in FORMATS for format_name in target.formats)
    assert target.channel_multiple >= 1
    assert isinstance(target.form, ExportForm)
    assert target.description
    assert name in DEVICES
    reason = target.available()
    assert reason is None or reason.strip()


@pytest.mark.parametrize("name", list(TARGETS))
def test_a_fingerprint_needs_no_device(name: str) -> None:
    """A table from elsewhere is planned with where the device is missing."""
    assert DEVICES.get(name)(1).fingerprint().threads == 1


def test_the_fingerprint_is_stable_and_holds_the_threads(target: str, device: Device) -> None:
    assert device.fingerprint() == DEVICES.get(target)(1).fingerprint()
    differences = device.fingerprint().differences(DEVICES.get(target)(2).fingerprint())
    assert len(differences) == 1
    assert differences[0].startswith("threads")


@slow_to_compile
def test_samples_of_every_format_are_positive(target: str, device: Device) -> None:
    formats = [n for n in TARGETS.get(target).formats if LayerType.LINEAR in FORMATS.get(n).layer_types]
    for name in formats:
        times_ms = device.sample(linear(name), runs=3, seed=0, working_set_bytes=100_000)
        assert 3 <= len(times_ms) <= 9
        assert all(time_ms > 0 for time_ms in times_ms)


def test_a_foreign_format_is_refused(target: str, device: Device) -> None:
    foreign = set(FORMATS) - set(TARGETS.get(target).formats)
    linears = sorted(name for name in foreign if LayerType.LINEAR in FORMATS.get(name).layer_types)
    assert linears
    for name in linears:
        with pytest.raises(KernelError, match=r"kernel|a linear operator on ONNX Runtime is"):
            device.sample(linear(name), runs=3, seed=0, working_set_bytes=0)


@slow_to_compile
def test_whole_models_have_times_and_the_model_stays_as_it_is(
    target: str, device: Device, tiny_text: Any, tmp_path: Path
) -> None:
    loaded = load_model(tiny_text.model)
    units = loaded.structure.units
    assembler = Assembler(loaded.model, loaded.structure, VariantMaker(loaded.model, units, None).make)
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in units})
    small = dense.replace(**{u.name: Choice(max(1, u.groups // 2), "fp32") for u in units if u.producers})
    before = dict(assembler.apply(dense).named_modules())
    models = []
    for policy in (dense, small):
        models.append(
            device.whole_model(assembler.apply(policy), loaded.task, Workload(batch=1, sequence_length=8), tmp_path)
        )
    for model in (*models, *models):
        times_ms = model.sample(runs=4)
        assert 3 <= len(times_ms) <= 12
        assert all(time_ms > 0 for time_ms in times_ms)
    after = dict(assembler.apply(dense).named_modules())
    assert all(after[name] is before[name] for name in before)
