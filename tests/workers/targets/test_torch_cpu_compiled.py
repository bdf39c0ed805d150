"""Operators and whole models compiled by torch on the CPU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_operators import FLOAT, INT8
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters

from evaluators.latency.workload import Operator
from search_spaces.architectures import structure_of
from search_spaces.policy import Choice, Policy
from search_spaces.units import UnitKind
from workers.assemble import Assembler
from workers.export.torch_compiled_layers import COMPILED_FORMS
from workers.export.torch_layers import CPU_FORMS, torch_form
from workers.quantization.linear import has_int8_products
from workers.targets import torch_compiling
from workers.targets.base import TARGETS
from workers.targets.device import KernelError
from workers.targets.torch_compiling import add_one, compile_call, compile_model, run_calls
from workers.targets.torch_cpu_compiled import CompiledModel, TorchCpuCompiled
from workers.targets.torch_operators import build_calls
from workers.targets.torch_threads import torch_inference
from workers.variants import VariantMaker

CPU = torch.device("cpu")
compiles = pytest.mark.skipif(
    TARGETS.get("cpu-torch-compiled").available() is not None, reason="needs a C++ compiler and Python's headers"
)
int8_only = pytest.mark.skipif(not has_int8_products(), reason="needs a CPU with VNNI instructions")
OPERATORS = [*FLOAT, *(pytest.param(operator, marks=int8_only) for operator in INT8)]


def _draw(operator: Operator, seed: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    calls = [build_calls(operator, copies=1, seed=seed + i, device=CPU, forms=COMPILED_FORMS)[0] for i in range(3)]
    return tuple(call.function for call in calls), tuple(call.inputs for call in calls)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_every_operator_is_compiled_once_for_all_weights_and_computes_the_same(operator: Operator) -> None:
    before = counters["stats"]["unique_graphs"]
    run = None
    for seed in (0, 10, 20):
        with torch_inference(1):
            functions, inputs = _draw(operator, seed)
            run = run or compile_call(run_calls, functions, inputs)
            torch.testing.assert_close(
                run(functions, inputs), run_calls(functions, inputs), rtol=1e-4, atol=1e-4, equal_nan=False
            )
    assert counters["stats"]["unique_graphs"] == before + 1


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_every_operator_has_a_time(operator: Operator) -> None:
    times_ms = TorchCpuCompiled(threads=1).sample(operator, runs=4, seed=0, working_set_bytes=10_000)
    assert 3 <= len(times_ms) <= 12
    assert all(0 < time_ms < 100 for time_ms in times_ms)


@compiles
@pytest.mark.slow
def test_an_operator_is_compiled_once_for_all_rounds() -> None:
    before, device, threads = counters["stats"]["unique_graphs"], TorchCpuCompiled(threads=1), torch.get_num_threads()
    for seed in range(3):
        times_ms = device.sample(FLOAT[0], runs=4, seed=seed, working_set_bytes=10_000)
        assert 3 <= len(times_ms) <= 12
        assert all(0 < time_ms < 100 for time_ms in times_ms)
    # One more is the call that does nothing.
    assert counters["stats"]["unique_graphs"] == before + 2
    assert torch.get_num_threads() == threads


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole graphs as ever, but they run as they are: no code is made."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch_compiling, "compiler_obstacle", lambda: None)


@pytest.mark.usefixtures("traced_only")
def test_many_functions_are_all_compiled_and_freed() -> None:
    before = counters["stats"]["unique_graphs"]
    functions = [compile_call(add_one, torch.zeros(size)) for size in range(2, 42)]
    assert counters["stats"]["unique_graphs"] == before + 40
    assert [len(function(torch.zeros(size))) for size, function in enumerate(functions, 2)] == list(range(2, 42))
    assert counters["stats"]["unique_graphs"] == before + 40


@pytest.mark.usefixtures("traced_only")
def test_a_function_never_falls_back_to_eager() -> None:
    function = compile_call(add_one, torch.zeros(1))

    def use_for_many_shapes() -> None:
        for size in range(2, 100):
            function(torch.zeros(size))

    with pytest.raises(FailOnRecompileLimitHit, match="Hard failure due to fullgraph=True"):
        use_for_many_shapes()


@pytest.mark.usefixtures("traced_only")
def test_what_is_no_single_graph_is_refused() -> None:
    def by_value(x: Tensor) -> Tensor:
        return x + 1 if x.sum().item() > 0 else x

    with pytest.raises(KernelError, match=r"turns into one graph; it failed with: .*search for cpu-torch"):
        compile_call(by_value, torch.zeros(2))


def test_other_logits_than_the_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compiling, "compile_call", lambda *_: lambda _model, inputs: -inputs["x"])
    monkeypatch.setattr(torch_compiling, "logits_of", lambda _model, inputs: inputs["x"])
    with pytest.raises(KernelError, match=r"cosine of 0\.999; got -1\.0"):
        compile_model(nn.Identity(), {"x": torch.ones(1, 2)})


def test_the_target_is_unavailable_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = TARGETS.get("cpu-torch-compiled").available()
    assert reason is not None
    assert "finds no 'no-such-compiler'; install one" in reason
    with pytest.raises(KernelError, match=r"finds no 'no-such-compiler'.*search for cpu-torch"):
        TorchCpuCompiled(threads=1).sample(FLOAT[0], runs=3, seed=0, working_set_bytes=0)


def test_the_target_is_unavailable_without_pythons_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/bin/compiler")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    assert "finds no" in (TARGETS.get("cpu-torch-compiled").available() or "")
    (tmp_path / "Python.h").touch()
    assert TARGETS.get("cpu-torch-compiled").available() is None


def test_the_fingerprint_is_not_that_of_eager_torch() -> None:
    here = TorchCpuCompiled(threads=3).fingerprint()
    assert (here.runtime, here.runtime_version, here.threads) == ("torch-compiled", torch.__version__, 3)


_BLOCK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_T = transformers
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: _T.BertForSequenceClassification(_T.BertConfig(vocab_size=50, **_BLOCK)),
    "vit": lambda: _T.ViTForImageClassification(_T.ViTConfig(**_BLOCK, image_size=24, patch_size=8)),
    "llama": lambda: _T.LlamaForCausalLM(
        _T.LlamaConfig(vocab_size=50, num_key_value_heads=2, head_dim=8, use_cache=False, **_BLOCK)
    ),
    "t5": lambda: _T.T5ForConditionalGeneration(
        _T.T5Config(
            vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
            use_cache=False,
        )
    ),
}  # fmt: skip


def _inputs(family: str, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if family == "vit":
        return {"pixel_values": torch.randn(batch, 3, 24, 24, generator=generator)}
    ids = torch.randint(2, 50, (batch, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, 5:] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    return {**found, "decoder_input_ids": ids} if family == "t5" else found


def _searched(family: str, format_name: str) -> nn.Module:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    structure = structure_of(model)
    assembler = Assembler(model, structure, VariantMaker(model, structure.units, None).make)
    of_table = format_name == "w8"
    choices = {
        unit.name: Choice(unit.groups, format_name if (unit.kind is UnitKind.EMBEDDING) == of_table else "fp32")
        for unit in structure.units
    }
    return assembler.apply(Policy(choices))


@compiles
@int8_only
@pytest.mark.slow
@pytest.mark.parametrize("format_name", TARGETS.get("cpu-torch-compiled").formats)
@pytest.mark.parametrize("family", ["bert", "vit"])
def test_compiled_models_compute_what_was_searched_and_what_eager_layers_compute(family: str, format_name: str) -> None:
    searched, inputs = _searched(family, format_name), _inputs(family)
    model = CompiledModel(model=torch_form(searched, COMPILED_FORMS, CPU), threads=1)
    before = counters["stats"]["unique_graphs"]
    with torch.inference_mode():
        expected = searched(**inputs).logits
        eager = torch_form(searched, CPU_FORMS, CPU)(**inputs).logits
    found = model.logits(inputs)
    tolerance = {"rtol": 1e-3, "atol": 2e-3 * float(expected.abs().max())}
    torch.testing.assert_close(found, expected, **tolerance)
    torch.testing.assert_close(found, eager, **tolerance)
    assert 3 <= len(model.time(inputs, runs=3, quiet=False)) <= 9
    assert counters["stats"]["unique_graphs"] == before + 1


@int8_only
@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("format_name", ["w8a8", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f != "bert")]
)
def test_models_are_one_graph_and_batches_of_other_shapes_need_no_other(family: str, format_name: str) -> None:
    searched = _searched(family, format_name)
    model = CompiledModel(model=torch_form(searched, COMPILED_FORMS, CPU), threads=1)
    before = counters["stats"]["unique_graphs"]
    for batch in (2, 1, 3, 2):
        with torch.inference_mode():
            expected = searched(**_inputs(family, batch)).logits
        found = model.logits(_inputs(family, batch))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3 * float(expected.abs().max()))
    assert counters["stats"]["unique_graphs"] == before + 1
    model.time(_inputs(family, 3), runs=3, quiet=False)
    assert counters["stats"]["unique_graphs"] == before + 2
