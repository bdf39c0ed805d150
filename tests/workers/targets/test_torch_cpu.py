"""Operators and whole models in torch on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_operators import FLOAT, INT8, MAP

from evaluators.latency.workload import Operator, OperatorKind, Workload
from search_spaces.policy import Choice, Policy
from search_spaces.units import UnitKind
from workers.assemble import Assembler
from workers.export.torch_layers import CPU_FORMS
from workers.model import load_model
from workers.quantization.linear import has_int8_products
from workers.targets.base import TARGETS
from workers.targets.device import KernelError
from workers.targets.torch_cpu import TorchCpu
from workers.targets.torch_operators import build_calls
from workers.variants import VariantMaker

OPERATORS = [*FLOAT, *(INT8 if has_int8_products() else ())]


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_every_operator_of_the_target_has_a_time(operator: Operator) -> None:
    times_ms = TorchCpu(threads=1).sample(operator, runs=4, seed=0, working_set_bytes=10_000)
    assert 3 <= len(times_ms) <= 12
    assert all(0 < time_ms < 100 for time_ms in times_ms)


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_copies_have_results_of_the_right_shape(operator: Operator) -> None:
    calls = build_calls(operator, copies=2, seed=0, device=torch.device("cpu"), forms=CPU_FORMS)
    results = [call() for call in calls]
    features = {"linear": 16}
    heads = {"head_norm": (2, 5, 2, 8), "rotary": (2, 2, 5, 8)}
    for result in results:
        if operator.kind is OperatorKind.ATTENTION_CORE:
            assert result.shape == (2, 5, 2 * operator.axis("queries") * 8)
        elif operator.kind is OperatorKind.POSITIONS:
            assert [tensor.shape for tensor in result] == [(2, 1, 5, 5), (1, 5, 8), (1, 5, 8)]
        elif operator.kind.value in heads:
            assert result.shape == heads[operator.kind.value]
        elif operator.kind in (OperatorKind.CONVOLUTION, OperatorKind.DEPTHWISE):
            assert result.shape == (1, 8, 6, 6)
        elif operator.kind is OperatorKind.QUANTIZE:
            assert result.codes.dtype is torch.uint8
        else:
            assert result.shape == (1, 5, features.get(operator.kind.value, 24))
    if operator.kind is OperatorKind.LINEAR:
        assert not results[0].equal(results[1])


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Operator.of(OperatorKind.LINEAR, format="w4", tokens=2, in_features=32, out_features=8), "BlockInt4Linear"),
        (
            Operator.of(
                OperatorKind.CONVOLUTION, format="w8a8s", in_channels=3, out_channels=8, kernel=1, stride=1, **MAP
            ),
            "has none for convolution w8a8s",
        ),
        (Operator.of(OperatorKind.RESIDUAL_ADD, channels=8, **MAP), "feature maps in float32 only"),
        (Operator.of(OperatorKind.ACTIVATION, function="nope", tokens=2, features=8), "got 'nope'"),
    ],
    ids=["w4", "w8a8s", "residual_add", "activation"],
)
def test_what_torch_has_no_kernel_for_is_refused(operator: Operator, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        TorchCpu(threads=1).sample(operator, runs=3, seed=0, working_set_bytes=0)


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    TorchCpu(threads=before + 1).sample(OPERATORS[0], runs=3, seed=0, working_set_bytes=0)
    assert torch.get_num_threads() == before


def test_whole_models_of_several_policies_answer_and_are_timed(tiny_text: Any, tmp_path: Path) -> None:
    loaded = load_model(tiny_text.model)
    units = loaded.structure.units
    assembler = Assembler(loaded.model, loaded.structure, VariantMaker(loaded.model, units, None).make)
    device, workload = TorchCpu(threads=1), Workload(batch=2, sequence_length=9)
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in units})
    dropped = dense.replace(**{unit.name: Choice(0, "fp32") for unit in units if unit.branch is not None})
    models = [device.whole_model(assembler.apply(p), loaded.task, workload, tmp_path) for p in (dense, dropped)]
    with torch.inference_mode():
        logits = [model.model(**model.inputs).logits for model in models]
        again = [assembler.apply(policy)(**models[0].inputs).logits for policy in (dense, dropped)]
    for found, expected in zip(logits, again, strict=True):
        torch.testing.assert_close(found, expected)
    for model in models:
        times_ms = model.sample(runs=4)
        assert 3 <= len(times_ms) <= 12
        assert all(time_ms > 0 for time_ms in times_ms)
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_tells_runtime_and_threads() -> None:
    here = TorchCpu(threads=3).fingerprint()
    assert (here.runtime, here.runtime_version, here.threads) == ("torch", torch.__version__, 3)
    assert here.device


def test_attention_units_and_feed_forward_units_have_kernels_in_every_format(tiny_text: Any, tmp_path: Path) -> None:
    if not has_int8_products():
        pytest.skip("needs a CPU with VNNI instructions")
    loaded = load_model(tiny_text.model)
    units = loaded.structure.units
    assembler = Assembler(loaded.model, loaded.structure, VariantMaker(loaded.model, units, None).make)
    for name in TARGETS.get("cpu-torch").formats:
        of_table = name == "w8"
        choices = {
            u.name: Choice(u.groups, name if (u.kind is UnitKind.EMBEDDING) == of_table else "fp32") for u in units
        }
        choices = {k: Choice(c.keep, "fp32") if name == "fp32" else c for k, c in choices.items()}
        model = assembler.apply(Policy(choices))
        timed = TorchCpu(threads=1).whole_model(model, loaded.task, Workload(batch=1, sequence_length=5), tmp_path)
        assert 3 <= len(timed.sample(runs=3)) <= 9
