"""Quantized layers against plain numpy, and against ONNX Runtime's own kernels on the exported layer."""

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from search_spaces.formats import FORMATS
from workers.export.onnx import export_onnx
from workers.quantization.codes import Codes, round_to_nearest
from workers.quantization.float_linear import FLOAT_TYPES
from workers.quantization.linear import (
    BlockInt4Linear,
    Bypass,
    CallScope,
    ConstantBranch,
    DynamicInt8Linear,
    SharedInput,
    make_linear,
)
from workers.targets.onnxruntime_cpu import open_session

Array = npt.NDArray[np.float32]


def _codes(name: str, out_features: int, in_features: int, seed: int = 0) -> tuple[Codes, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator) / math.sqrt(in_features)
    return round_to_nearest(weight, FORMATS.get(name)), torch.randn(out_features, generator=generator)


def _input(*shape: int, seed: int = 0, shift: float = 0.3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + shift


def _numpy_dynamic_int8(x: Array, codes: Codes, bias: Array) -> npt.NDArray[np.float64]:
    """DynamicQuantizeLinear as the ONNX standard words it, then a product of integers."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.float32((high - low) / 255) if high > low else np.float32(1)
    zero = int(np.clip(np.rint(-np.float32(low) / scale), 0, 255))
    quantized = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64) - zero
    sums = quantized @ codes.codes_OK.numpy().astype(np.int64).T
    return sums * float(scale) * codes.scale_ON[:, 0].numpy().astype(np.float64) + bias


def _numpy_block_int4(x: Array, codes: Codes, bias: Array) -> npt.NDArray[np.float64]:
    """Each row and block of the input rounded to int8 by its largest value."""
    rounded = np.zeros(x.shape)
    for row in range(x.shape[0]):
        for start in range(0, x.shape[1], codes.block):
            part = x[row, start : start + codes.block]
            step = np.abs(part).max() / 127
            rounded[row, start : start + codes.block] = np.rint(part / step) * step if step > 0 else 0
    return rounded @ codes.dequantize().numpy().astype(np.float64).T + bias


@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.3, 5.0])
def test_dynamic_int8_is_the_naive_one(shift: float) -> None:
    codes, bias = _codes("w8a8", 20, 48)
    x = _input(2, 7, 48, shift=shift)
    naive = _numpy_dynamic_int8(x.numpy().reshape(-1, 48), codes, bias.numpy()).reshape(2, 7, 20)
    np.testing.assert_allclose(DynamicInt8Linear(codes, bias, CallScope())(x).numpy(), naive, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_dynamic_int8_of_a_constant_input(value: float) -> None:
    codes, bias = _codes("w8a8", 5, 16)
    x = torch.full((1, 3, 16), value)
    naive = _numpy_dynamic_int8(x.numpy().reshape(-1, 16), codes, bias.numpy()).reshape(1, 3, 5)
    np.testing.assert_allclose(DynamicInt8Linear(codes, bias, CallScope())(x).numpy(), naive, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_features", [32, 64, 72, 5])
@pytest.mark.parametrize("name", ["w4", "w4g128"])
def test_block_int4_is_the_naive_one(name: str, in_features: int) -> None:
    codes, bias = _codes(name, 20, in_features)
    x = _input(9, in_features)
    x[3] = 0
    naive = _numpy_block_int4(x.numpy(), codes, bias.numpy())
    np.testing.assert_allclose(BlockInt4Linear(codes, bias)(x).numpy(), naive, rtol=1e-3, atol=1e-3)


def test_inputs_too_small_for_a_scale_count_as_zero() -> None:
    codes, bias = _codes("w4", 4, 32)
    tiny = torch.full((1, 32), 1e-42)
    assert BlockInt4Linear(codes, bias)(tiny).equal(bias[None])
    codes, bias = _codes("w8a8", 4, 32)
    assert bool(DynamicInt8Linear(codes, bias, CallScope())(tiny[None]).isfinite().all())


class _Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class _Model(nn.Module):
    """One layer in the shape of a classifier, so that the product's own exporter takes it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor) -> _Output:
        return _Output(self.layer(hidden))


class _Axes:
    dynamic_axes: ClassVar = {"hidden": {0: "batch", 1: "sequence"}}


LAYERS = [("w8a8", 48, 40), ("w4", 64, 40), ("w4", 72, 24), ("w4g128", 200, 24), ("w4", 8, 16)]


@pytest.fixture(scope="module", params=LAYERS, ids=lambda p: f"{p[0]}-{p[1]}x{p[2]}")
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[nn.Module, int, object]]:
    name, in_features, out_features = request.param
    codes, bias = _codes(name, out_features, in_features)
    layer = DynamicInt8Linear(codes, bias, CallScope()) if name == "w8a8" else BlockInt4Linear(codes, bias)
    path = tmp_path_factory.mktemp("layer") / "layer.onnx"
    model = _Model(layer)
    export_onnx(model, _Axes(), {"hidden": torch.zeros(2, 3, in_features)}, path)  # type: ignore[arg-type]
    assert model.layer is layer
    return layer, in_features, open_session(path, threads=1)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (4, 33)])
@pytest.mark.parametrize("shift", [0.0, 0.3, 4.0])
def test_onnx_runtime_computes_the_same(
    exported: tuple[nn.Module, int, object], shape: tuple[int, int], shift: float
) -> None:
    layer, in_features, session = exported
    x = _input(*shape, in_features, seed=1, shift=shift)
    (here,) = session.run(None, {"hidden": x.numpy()})  # type: ignore[attr-defined]
    searched = layer(x).numpy()
    if isinstance(layer, DynamicInt8Linear):
        np.testing.assert_allclose(searched, here, rtol=1e-4, atol=1e-5)
    else:
        assert np.abs(searched - here).max() < 0.01 * here.std() + 1e-6


class TestCallScope:
    def test_stacked_calls_are_single_calls(self) -> None:
        codes, bias = _codes("w8a8", 12, 16)
        scope = CallScope()
        layer = DynamicInt8Linear(codes, bias, scope)
        x = _input(6, 5, 16) * torch.arange(1, 7)[:, None, None]
        scope.examples = 2
        stacked = layer(x)
        scope.examples = None
        for start in range(0, 6, 2):
            assert stacked[start : start + 2].equal(layer(x[start : start + 2]))
        assert not layer(x).allclose(stacked)

    def test_calls_that_do_not_fill_the_batch_are_refused(self) -> None:
        codes, bias = _codes("w8a8", 12, 16)
        scope = CallScope()
        scope.examples = 2
        with pytest.raises(ValueError, match="got 3 examples in calls of 2"):
            DynamicInt8Linear(codes, bias, scope)(_input(3, 4, 16))

    def test_int4_does_not_depend_on_what_shares_a_call(self) -> None:
        codes, bias = _codes("w4", 12, 40)
        layer = BlockInt4Linear(codes, bias)
        x = _input(6, 5, 40)
        torch.testing.assert_close(layer(x)[2:3], layer(x[2:3]))


class TestSharedInput:
    def test_readers_of_one_tensor_give_what_each_gives_alone(self) -> None:
        scope, shared = CallScope(), SharedInput(readers=3)
        weights = [_codes("w8a8", 12, 16, seed) for seed in range(3)]
        alone = [DynamicInt8Linear(codes, bias, scope) for codes, bias in weights]
        together = [DynamicInt8Linear(codes, bias, scope, shared) for codes, bias in weights]
        for seed, scope.examples in enumerate((2, None, 3, 2)):
            x = _input(6, 5, 16, seed=seed)
            for one, other in zip(alone, together, strict=True):
                assert other(x).equal(one(x))
            assert shared._input is None, "nothing is held once all have read"

    def test_another_tensor_or_other_calls_are_quantized_afresh(self) -> None:
        scope, shared = CallScope(), SharedInput(readers=3)
        codes, bias = _codes("w8a8", 12, 16)
        alone, together = DynamicInt8Linear(codes, bias, scope), DynamicInt8Linear(codes, bias, scope, shared)
        x = _input(6, 5, 16) * torch.arange(1, 7)[:, None, None]
        assert together(x).equal(alone(x))
        other = x * 2
        assert together(other).equal(alone(other))
        scope.examples = 2
        assert together(other).equal(alone(other))


class TestMakeLinear:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("name", list(FORMATS))
    def test_layer_of_every_format(self, name: str, bias: bool) -> None:
        target = FORMATS.get(name)
        weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
        tensors = {"bias": torch.arange(6.0)} if bias else {}
        if target.is_quantized:
            codes = round_to_nearest(weight, target)
            tensors |= {"codes": codes.codes_OK, "scale": codes.scale_ON}
            if codes.zeros_ON is not None:
                tensors["zeros"] = codes.zeros_ON
            assert codes.dequantize().shape == weight.shape
        else:
            tensors["weight"] = weight.to(FLOAT_TYPES.get(target.activation, torch.float32))
        layer = make_linear(tensors, target, in_features=40, scope=CallScope())
        x = _input(2, 3, 40)
        expected = nn.functional.linear(x, weight, tensors.get("bias"))
        assert float((layer(x) - expected).std()) < 0.15 * float(expected.std())
        stored = sum(t.numel() * t.element_size() for t in tensors.values()) - 4 * 6 * bias
        if target.weight_bits >= 8:
            assert stored == target.weight_bytes(6, 40)


class TestLeftOutBranch:
    def test_constant_broadcasts(self) -> None:
        bias = torch.arange(3.0)
        assert ConstantBranch(bias)(torch.zeros(2, 4, 8)).equal(bias)
        assert ConstantBranch(bias, returns_tuple=True)(torch.zeros(2), mask=None) == (bias, None)

    def test_bypass_hands_its_input_on(self) -> None:
        x = torch.ones(2, 3)
        assert Bypass(returns_tuple=False)(x, 1, k=2) is x
        assert Bypass(returns_tuple=True)(x)[0] is x
