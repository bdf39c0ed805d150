"""Layers that train compute what ships, before training and after it."""

import copy

import pytest
import torch
from torch import nn

from search_spaces.formats import FORMATS
from workers.quantization.codes import round_to_nearest
from workers.quantization.convolution import RoundedActivation, StaticInt8Convolution, StaticRange
from workers.quantization.linear import CallScope, make_linear
from workers.recovery.layers import RecoveryError, make_trainable, quantized_layers, scope_of, shipped

_FORMATS = ["fp32", "bf16", "fp16", "w8a8", "w8a8r", "fp8", "w4", "w4g128", "w4a16"]
_STEP = 0.3
"""A little above a step of bfloat16 at the largest outputs, which lie between 16 and 64."""
_ROUNDED = {"w4a16": _STEP, "bf16": 0.0, "fp16": 0.0}


def _model(name: str) -> nn.Module:
    target, generator = FORMATS.get(name), torch.Generator().manual_seed(0)
    weight, bias = torch.randn(24, 200, generator=generator), torch.randn(24, generator=generator)
    tensors = {"weight": weight, "bias": bias}
    if target.is_quantized:
        codes = round_to_nearest(weight, target)
        tensors = {"codes": codes.codes_OK, "scale": codes.scale_ON, "bias": bias}
        if codes.zeros_ON is not None:
            tensors["zeros"] = codes.zeros_ON
    return nn.Sequential(make_linear(tensors, target, in_features=200, scope=CallScope()))


@pytest.mark.parametrize("name", _FORMATS)
def test_nothing_changes_until_it_is_trained(name: str) -> None:
    model, inputs = _model(name), torch.randn(4, 7, 200, generator=torch.Generator().manual_seed(1))
    before, kind = model(inputs), type(model[0])
    make_trainable(model)
    torch.testing.assert_close(model(inputs).detach(), before, rtol=0, atol=_ROUNDED.get(name, 1e-4))
    found = shipped(model)
    assert type(found[0]) is kind
    torch.testing.assert_close(found(inputs), before, rtol=0, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize("name", _FORMATS)
def test_what_was_trained_is_what_ships(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    model, inputs = _model(name), torch.randn(4, 7, 200, generator=generator)
    make_trainable(model)
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        loss = (model(inputs) - torch.randn(4, 7, 24, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {key for key, tensor in model.state_dict().items() if not tensor.equal(start[key])}
    assert changed >= {"0.weight", "0.bias"}
    tolerance = _STEP if name == "fp8" else _ROUNDED.get(name, 1e-3)
    assert "0.log_scale_ON" in changed or not FORMATS.get(name).is_quantized
    torch.testing.assert_close(shipped(model)(inputs), model(inputs).detach(), rtol=0, atol=tolerance)


def test_calls_keep_their_own_ranges() -> None:
    model, inputs = _model("w8a8"), torch.randn(4, 7, 200, generator=torch.Generator().manual_seed(3))
    make_trainable(model)
    scope_of(model).examples = 1
    apart = torch.cat([model(inputs[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(model(inputs), apart, rtol=0, atol=1e-4)


def test_a_layer_that_was_not_rounded_is_rounded_to_nearest_when_it_ships() -> None:
    model = _model("w4")
    make_trainable(model)
    layer = quantized_layers(model)[0]
    layer.use_bits(None)
    nn.init.normal_(layer.weight)
    codes = round_to_nearest(layer.weight.detach(), FORMATS.get("w4"))
    assert shipped(model)[0].codes_OK.equal(codes.codes_OK)


def test_fewer_bits_begin_with_new_scales() -> None:
    model = _model("w4")
    make_trainable(model)
    layer = quantized_layers(model)[0]
    nn.init.normal_(layer.weight)
    errors = []
    for bits in (16, 8, 4):
        layer.use_bits(bits)
        errors.append(float((layer.rounded_weight() - layer.weight).detach().abs().max()))
    assert errors[0] < 1e-3 < errors[1] < 0.05
    assert float(layer.log_scale_ON.detach().exp().max()) < 1


def test_a_static_convolution_trains_between_its_codes() -> None:
    generator = torch.Generator().manual_seed(4)
    dense = nn.Conv2d(3, 5, 3, padding=1)
    codes = round_to_nearest(torch.randn(5, 27, generator=generator), FORMATS.get("w8a8"))
    ranges = StaticRange.of(torch.tensor(-2.0), torch.tensor(2.0)), StaticRange.of(torch.tensor(0.0), torch.tensor(6.0))
    convolution = StaticInt8Convolution(
        dense,
        codes_OCRR=codes.codes_OK.view(5, 3, 3, 3),
        scale_O=codes.scale_ON[:, 0],
        bias_O=torch.randn(5, generator=generator),
        input_range=ranges[0],
        output_range=ranges[1],
    )
    model = nn.Sequential(RoundedActivation(ranges[0]), convolution)
    inputs = torch.randn(2, 3, 6, 6, generator=generator)
    before = model(inputs)
    make_trainable(model)
    step = float(ranges[1].scale)
    assert float((model(inputs) - before).detach().abs().max()) <= step * 1.01
    model(inputs).square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert float(parameter.grad.abs().sum()) > 0
            parameter -= 0.01 * parameter.grad
    assert float((shipped(model)(inputs) - model(inputs)).detach().abs().max()) <= step * 1.01


def test_a_layer_without_a_form_that_trains_is_named() -> None:
    class Strange(nn.Module):
        pass

    Strange.__module__ = "workers.quantization.strange"
    with pytest.raises(RecoveryError, match=r"'branch\.layer' is a Strange"):
        make_trainable(nn.ModuleDict({"branch": nn.ModuleDict({"layer": Strange()})}))


def test_embedding_tables_stay_and_all_else_trains() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(4, 3), "norm": nn.LayerNorm(3), "head": nn.Linear(3, 2)})
    model.requires_grad_(False)
    make_trainable(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
