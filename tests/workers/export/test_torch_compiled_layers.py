"""int8 layers that are traced whole, against the layers that the search computes with and against torch's kernels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from search_spaces.formats import FORMATS
from workers.export import torch_layers
from workers.export.torch_compiled_layers import COMPILED_FORMS, TracedInt8Linear, quantize_traced
from workers.export.torch_layers import Int8KernelLinear, quantize_tensor, torch_form
from workers.quantization.codes import round_to_nearest
from workers.quantization.linear import CallScope, DynamicInt8Linear, SharedInput, has_int8_products
from workers.targets.device import KernelError

CPU = torch.device("cpu")
int8_only = pytest.mark.skipif(not has_int8_products(), reason="needs a CPU with VNNI instructions")


def _layer(
    columns: int, outputs: int, *, bias: bool = True, seed: int = 0, shared: SharedInput | None = None
) -> DynamicInt8Linear:
    generator = torch.Generator().manual_seed(seed)
    codes = round_to_nearest(torch.randn(outputs, columns, generator=generator), FORMATS.get("w8a8"))
    bias_O = torch.randn(outputs, generator=generator) if bias else None
    return DynamicInt8Linear(codes, bias_O, CallScope(), shared)


def _input(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3 - 1


@int8_only
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(2, 70), st.integers(1, 40), st.booleans(), st.integers(0, 10**6))
def test_products_are_those_of_the_search(rows: int, columns: int, outputs: int, bias: bool, seed: int) -> None:
    layer, x = _layer(columns, outputs, bias=bias, seed=seed), _input(2, rows, columns, seed=seed)
    assert TracedInt8Linear(layer)(x).equal(layer(x))


@int8_only
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(2, 70), st.integers(1, 40), st.integers(0, 10**6))
def test_products_of_equal_codes_are_those_of_torchs_kernel(rows: int, columns: int, outputs: int, seed: int) -> None:
    layer, x = _layer(columns, outputs, seed=seed), _input(2, rows, columns, seed=seed)
    codes = quantize_traced(x)
    kernel = Int8KernelLinear(layer)
    same = torch_layers.TensorCodes(
        (codes.codes.int() + 128).to(torch.uint8), codes.scale.item(), int(128 - codes.shift.item())
    )
    expected = kernel.multiply(same)
    found = TracedInt8Linear(layer).multiply(codes)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30))
def test_codes_are_those_of_the_eager_layers_but_for_edges(values: list[float]) -> None:
    x = torch.tensor(values)
    codes, scale, shift = quantize_traced(x)
    eager = quantize_tensor(x)
    assert codes.dtype is torch.int8
    assert float(scale) == pytest.approx(eager.scale, rel=1e-5)
    if 128 - int(shift) != eager.zero:
        # The zero point itself lies on an edge.
        assert abs(128 - int(shift) - eager.zero) == 1
        return
    different = codes.int() + 128 != eager.codes.int()
    steps = x.double() / float(scale)
    assert float((codes.int() + 128 - eager.codes.int()).abs().max()) <= 1
    assert bool(((steps - steps.floor() - 0.5).abs() < 1e-3)[different].all())


def _graph(model: nn.Module, x: Tensor) -> fx.Graph:
    """What a compiler is handed: all of it, as it is asked to be one graph."""
    found: list[fx.Graph] = []

    def keep(traced: fx.GraphModule, _inputs: object) -> object:
        found.append(traced.graph)
        return traced.forward

    with torch.inference_mode():
        torch.compile(model, backend=keep, fullgraph=True, dynamic=False)(x)
    assert len(found) == 1
    return found[0]


@int8_only
def test_layers_that_read_the_same_input_share_its_codes_in_the_graph() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = SharedInput(readers=2)
            self.query, self.key = (_layer(24, 16, seed=seed, shared=shared) for seed in (1, 2))
            self.output = _layer(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.output(self.query(x) * self.key(x))

    model, x = Block().eval(), _input(1, 5, 24)
    form = torch_form(model, COMPILED_FORMS, CPU)
    graph = _graph(form, x)
    assert sum(node.target is torch.aminmax for node in graph.nodes) == 2
    assert sum(node.target is torch._int_mm for node in graph.nodes) == 3
    assert form(x).equal(model(x))


@int8_only
def test_a_layer_of_one_input_feature_is_refused() -> None:
    with pytest.raises(KernelError, match="two input features or more"):
        TracedInt8Linear(_layer(1, 8))


def test_a_processor_without_exact_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_layers, "has_int8_products", lambda: False)
    with pytest.raises(KernelError, match="VNNI"):
        TracedInt8Linear(_layer(32, 8))
