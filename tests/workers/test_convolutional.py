import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from torch import Tensor, nn

from evaluators.quality import StackedCalls, kl_divergence
from evaluators.size import size_bytes
from evaluators.tasks.image_classification import ImageClassification
from search_spaces.architectures import structure_of
from search_spaces.channels import ChannelLayer, ChannelLayerKind
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from search_spaces.units import ModelStructure
from workers.assemble import Assembler
from workers.calibrate import Calibration, CalibrationError
from workers.calibrate_channels import collect_channels
from workers.export.onnx import export_onnx
from workers.pruning import PruningError, Saliency
from workers.quantization.calibrators import RangeMethod
from workers.quantization.convolution import RoundedActivation, StaticInt8Convolution, StaticRange
from workers.variants import Method, VariantMaker

_RESNET = {"embedding_size": 16, "depths": [2, 2], "num_channels": 1, "image_size": 16, "num_labels": 5}
FAMILIES = ("basic", "bottleneck", "mobilenet")
PLAIN = Method(saliency=Saliency.MAGNITUDE_L2, update=False, gptq=False)
EXAMPLES = 24


def _model(family: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module
    if family == "mobilenet":
        config = transformers.MobileNetV2Config(
            depth_multiplier=0.1, finegrained_output=False, image_size=32, num_labels=5
        )
        model = transformers.MobileNetV2ForImageClassification(config)
    else:
        sizes = {"basic": [16, 32], "bottleneck": [32, 64]}[family]
        model = transformers.ResNetForImageClassification(
            transformers.ResNetConfig(layer_type=family, hidden_sizes=sizes, **_RESNET)
        )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval().requires_grad_(False)


@dataclass
class Rig:
    """A tiny model with its space, and the assembler that makes it any policy's."""

    model: Any
    structure: ModelStructure
    space: SearchSpace
    maker: VariantMaker
    assembler: Assembler
    inputs: Tensor
    dense: Tensor

    def logits(self, policy: Policy) -> Tensor:
        model = self.assembler.apply(policy)
        with torch.inference_mode():
            found: Tensor = model(pixel_values=self.inputs).logits
        return found

    def layers(self) -> Sequence[ChannelLayer]:
        return [layer for unit in self.structure.units for layer in unit.channel_layers]


def _rig(family: str, method: Method | None = None, *, model: nn.Module | None = None) -> Rig:
    model = model or _model(family)
    config: Any = model.config
    generator = torch.Generator().manual_seed(1)
    shape = (EXAMPLES, config.num_channels, config.image_size, config.image_size)
    inputs = torch.randn(shape, generator=generator)
    structure = structure_of(model)
    call = StackedCalls(inputs={"pixel_values": inputs}, examples_per_call=1, rows=tuple(range(EXAMPLES)))
    calibration = Calibration(structure.units, [call], lambda: model)
    maker = VariantMaker(model, structure.units, calibration, method)
    # Calibration runs the dense model, so it is due before the skeleton changes.
    for unit in structure.units:
        maker.make(unit, Choice(max(1, unit.groups // 2), "w8a8s"))
    space = build_space(structure, SpaceConfig(), target_formats=("fp32", "w8a8s"), channel_multiple=4)
    with torch.inference_mode():
        dense = model(pixel_values=inputs).logits
    return Rig(model, structure, space, maker, Assembler(model, structure, maker.make), inputs, dense)


@pytest.fixture(scope="module", params=FAMILIES)
def rig(request: pytest.FixtureRequest) -> Rig:
    return _rig(request.param, PLAIN)


@pytest.fixture(scope="module")
def basic() -> Rig:
    return _rig("basic")


def _policies(rig: Rig, count: int, *, formats: Sequence[str] = ("fp32", "w8a8s"), seed: int = 0) -> list[Policy]:
    space = build_space(
        rig.structure, SpaceConfig(formats=tuple(formats)), target_formats=("fp32", "w8a8s"), channel_multiple=4
    )
    generator = random.Random(seed)
    return [space.random_policy(generator) for _ in range(count)]


def test_the_dense_policy_is_the_dense_model_whatever_was_assembled_before(rig):
    before = {name: id(module) for name, module in rig.model.named_modules()}
    for policy in _policies(rig, 6):
        assert rig.logits(policy).isfinite().all()
    assert torch.equal(rig.logits(rig.space.dense_policy()), rig.dense)
    assert {name: id(module) for name, module in rig.model.named_modules()} == before


def test_a_policy_is_the_same_model_whatever_was_assembled_before(rig):
    policies = _policies(rig, 4)
    first = [rig.logits(policy) for policy in policies]
    again = [rig.logits(policy) for policy in reversed(policies)]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))


def test_pruned_equals_masked(rig):
    for policy in _policies(rig, 4, formats=("fp32",)):
        policy = Policy({name: choice if choice.keep else Choice(4, "fp32") for name, choice in policy.choices.items()})
        pruned = rig.logits(policy)
        rig.assembler.apply(rig.space.dense_policy())
        gone = {
            unit.name: sorted(set(range(unit.groups)) - set(_kept(rig, unit.name, policy).tolist()))
            for unit in rig.structure.units
        }
        weights = {name: tensor.clone() for name, tensor in rig.model.state_dict().items()}
        for layer in rig.layers():
            if layer.rows is not None:
                rig.model.get_submodule(layer.layer).weight[gone[layer.rows]] = 0
                rig.model.get_submodule(layer.layer).bias[gone[layer.rows]] = 0
        masked = rig.logits(rig.space.dense_policy())
        rig.model.load_state_dict(weights)
        assert not torch.allclose(masked, rig.dense, atol=1e-3)
        torch.testing.assert_close(pruned, masked, rtol=1e-4, atol=1e-4)


def _kept(rig: Rig, unit: str, policy: Policy) -> Tensor:
    return rig.maker.make(rig.structure.unit(unit), policy[unit])[f"{unit}/kept"]


def test_shapes_are_smaller_and_parameters_counted_exactly(rig):
    for policy in _policies(rig, 4, formats=("fp32",)):
        model = rig.assembler.apply(policy)
        parameters = sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers())
        assert 4 * parameters == size_bytes(rig.structure, policy)
        for unit in rig.structure.units:
            for cut in unit.cut(policy, "fp32"):
                if cut.in_channels and cut.out_channels and "layer" in cut.layer.layer:
                    module = model.get_submodule(cut.layer.layer)
                    assert module.weight.flatten(1).shape == (cut.out_channels, cut.in_columns)


def test_bytes_of_static_formats_are_those_of_the_stored_tensors(rig):
    for policy in _policies(rig, 4):
        model = rig.assembler.apply(policy)
        stored = sum(p.numel() * p.element_size() for p in model.parameters())
        for module in model.modules():
            names = module._non_persistent_buffers_set
            stored += sum(b.numel() * b.element_size() for n, b in module._buffers.items() if n not in names)
        assert stored == size_bytes(rig.structure, policy)


def test_export_agrees_with_the_search(rig, tmp_path):
    task = ImageClassification(None, rig.model.config)
    for number, policy in enumerate(_policies(rig, 2, seed=3)):
        searched = rig.logits(policy).numpy()
        path = tmp_path / f"{number}.onnx"
        export_onnx(rig.model, task, {"pixel_values": rig.inputs[:2]}, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        exported = session.run(None, {"pixel_values": rig.inputs.numpy()})[0]
        # All but the rare code that falls on the other side of a half agrees exactly.
        assert np.abs(exported - searched).mean() < 1e-4 * np.abs(searched).max()
        weights = sum(np.prod(w.dims, dtype=int) for w in onnx.load(str(path)).graph.initializer if w.data_type == 3)
        assert weights == sum(m.codes_OCRR.numel() for m in rig.model.modules() if isinstance(m, StaticInt8Convolution))


def test_static_convolutions_run_on_integers(basic, tmp_path):
    policy = basic.space.uniform_policies()["keep 1, w8a8s"]
    searched = basic.logits(policy).numpy()
    export_onnx(
        basic.model, ImageClassification(None, basic.model.config), {"pixel_values": basic.inputs[:2]}, tmp_path / "m"
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(tmp_path / "m"), options, providers=["CPUExecutionProvider"])
    exported = session.run(None, {"pixel_values": basic.inputs.numpy()})[0]
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    assert kinds.count("QLinearConv") == 10
    assert kinds.count("QLinearAdd") >= 3
    assert "Conv" not in kinds
    assert "Relu" not in kinds
    assert np.abs(exported - searched).mean() < 2e-5 * np.abs(searched).max()


def test_a_static_convolution_is_that_of_the_operator():
    generator = torch.Generator().manual_seed(0)
    dense = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    codes = torch.randint(-127, 128, (5, 3, 3, 3), generator=generator, dtype=torch.int8)
    scale, bias = torch.rand(5, generator=generator) * 0.01 + 0.001, torch.randn(5, generator=generator)
    layer = StaticInt8Convolution(
        dense,
        codes_OCRR=codes,
        scale_O=scale,
        bias_O=bias,
        input_range=StaticRange.of(torch.tensor(-1.5), torch.tensor(2.0)),
        output_range=StaticRange.of(torch.tensor(0.0), torch.tensor(4.0)),
    )
    inputs = torch.randn(4, 3, 9, 9, generator=generator)
    input_scale, input_zero = float(layer.input_scale), int(layer.input_zero)
    node = onnx.helper.make_node(
        "QLinearConv", list("abcdefghi"), ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    weights = [
        np.float32(input_scale),
        np.uint8(input_zero),
        codes.numpy(),
        scale.numpy(),
        np.zeros(5, np.int8),
        np.float32(layer.output_scale),
        np.uint8(int(layer.output_zero)),
        np.rint(bias.numpy() / (np.float32(input_scale) * scale.numpy())).astype(np.int32),
    ]
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, [4, 3, 9, 9])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [4, 5, 5, 5])],
        [onnx.numpy_helper.from_array(np.asarray(w), n) for w, n in zip(weights, "bcdefghi", strict=True)],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = np.clip(np.rint(inputs.numpy() / np.float32(input_scale)) + input_zero, 0, 255).astype(np.uint8)
    expected = session.run(None, {"a": fed})[0].astype(int)
    found = torch.round(layer(inputs) / layer.output_scale).int().numpy() + int(layer.output_zero)
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.999


def test_a_range_holds_zero_exactly_and_a_range_from_zero_rectifies():
    found = StaticRange.of(torch.tensor(-1.0), torch.tensor(3.0))
    assert int(found.zero) == 64
    assert float(found.round(torch.tensor(0.0))) == 0
    rectifier = RoundedActivation(StaticRange.of(torch.tensor(0.5), torch.tensor(2.0)))
    values = torch.linspace(-2, 2, 101)
    torch.testing.assert_close(rectifier(values), values.relu(), rtol=0, atol=2 / 255 / 2 + 1e-6)
    assert float(StaticRange.of(torch.tensor(0.0), torch.tensor(0.0)).scale) == 1


def test_moments_are_those_of_patches():
    model = _model("basic")
    structure = structure_of(model)
    inputs = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    calls = [StackedCalls(inputs={"pixel_values": inputs}, examples_per_call=1, rows=(0, 1, 2))]
    found = collect_channels(model, structure.units, calls)
    name = "resnet.embedder.embedder.convolution"
    padded = np.pad(inputs.numpy().astype(np.float64), [(0, 0), (0, 0), (3, 3), (3, 3)])
    rows = [
        np.append(padded[n, :, y : y + 7, x : x + 7].ravel(), 1)
        for n in range(3)
        for y in range(0, 16, 2)
        for x in range(0, 16, 2)
    ]
    gram = sum(np.outer(row, row) for row in rows)
    torch.testing.assert_close(found.moments[name].gram_KK, torch.from_numpy(gram), rtol=1e-6, atol=1e-4)
    with torch.inference_mode():
        first = model.resnet.embedder.embedder(inputs)
    torch.testing.assert_close(found.outputs[name].range_2C[1], first.amax((0, 2, 3)))
    assert float(found.inputs[name].range_2C[0, 0]) == float(inputs.min())


def test_places_are_drawn_where_there_are_many(monkeypatch):
    monkeypatch.setattr("workers.calibrate_channels.MIN_PATCHES", 12)
    monkeypatch.setattr("workers.calibrate_channels.PATCHES_PER_COLUMN", 0)
    model = _model("basic")
    structure = structure_of(model)
    inputs = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    calls = [StackedCalls(inputs={"pixel_values": inputs}, examples_per_call=1, rows=(0, 1, 2))]
    found = collect_channels(model, structure.units, calls)
    assert found.moments["resnet.embedder.embedder.convolution"].tokens == 12


def test_the_update_makes_up_for_what_was_cut(basic):
    cut = _rig("basic", PLAIN)
    for ratio in (0.75, 0.5):
        policy = basic.space.uniform_policies()[f"keep {ratio:g}, fp32"]
        solved = kl_divergence(basic.dense, basic.logits(policy))
        assert solved < 0.5 * kl_divergence(cut.dense, cut.logits(policy))


def test_static_int8_stays_close_to_the_dense_model(basic):
    found = basic.logits(basic.space.uniform_policies()["keep 1, w8a8s"])
    assert torch.nn.functional.cosine_similarity(found, basic.dense).mean() > 0.99


@pytest.mark.parametrize("saliency", list(Saliency))
def test_choices_are_nested(saliency):
    rig = _rig("bottleneck", Method(saliency=saliency))
    for unit in rig.structure.units:
        kept = [set(rig.maker.make(unit, Choice(keep, "fp32"))[f"{unit.name}/kept"].tolist()) for keep in (4, 8)]
        assert kept[0] < kept[1]


def test_a_branch_that_is_left_out_adds_its_mean(basic):
    unit = basic.structure.unit("stage.0.layer.1.inner.0")
    with torch.inference_mode():
        layer = basic.model.resnet.encoder.stages[0].layers[1]
        seen = []
        handle = layer.layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
        basic.logits(basic.space.dense_policy())
        handle.remove()
    found = basic.maker.make(unit, Choice(0, "fp32"))["resnet.encoder.stages.0.layers.1.layer.1.convolution/bias"]
    torch.testing.assert_close(found, seen[0].mean((0, 2, 3)), rtol=1e-2, atol=1e-2)
    policy = basic.space.dense_policy().replace(**{unit.name: Choice(0, "fp32")})
    assert basic.logits(policy).isfinite().all()
    assert size_bytes(basic.structure, policy) == 4 * sum(
        tensor.numel() for tensor in (*basic.model.parameters(), *basic.model.buffers())
    )


def test_dead_channels_and_constant_maps_give_finite_variants():
    model = _model("basic")
    first = model.resnet.encoder.stages[0].layers[0].layer[0]
    first.normalization.weight.zero_()
    first.normalization.bias.fill_(-1.0)
    rig = _rig("basic", model=model)
    for policy in _policies(rig, 4):
        assert rig.logits(policy).isfinite().all()


def test_weights_that_are_not_finite_are_refused_with_the_unit():
    model = _model("basic")
    structure = structure_of(model)
    model.resnet.encoder.stages[1].layers[0].layer[1].convolution.weight[0, 0, 0, 0] = float("inf")
    maker = VariantMaker(model, structure.units, None)
    with pytest.raises(PruningError, match=r"layers.0.layer.1.convolution \(unit stage.1.layer.0.inner.0\)"):
        maker.make(structure.unit("stage.1.layer.0.inner.0"), Choice(16, "fp32"))


def test_maps_that_are_not_finite_are_refused_with_the_unit():
    model = _model("basic")
    structure = structure_of(model)
    call = StackedCalls(
        inputs={"pixel_values": torch.full((2, 1, 16, 16), float("nan"))}, examples_per_call=1, rows=(0, 1)
    )
    with pytest.raises(CalibrationError, match=r"embedder.convolution \(unit stage.0\) must be finite"):
        collect_channels(model, structure.units, [call])


def test_depthwise_layers_are_cut_with_their_channels():
    rig = _rig("mobilenet")
    unit = rig.structure.unit("layer.3.expanded")
    found = rig.maker.make(unit, Choice(8, "w8a8s"))
    depthwise = next(layer for layer in unit.channel_layers if layer.kind is ChannelLayerKind.DEPTHWISE)
    assert found[f"{depthwise.layer}/codes"].shape == (8, 9)
    assert found[f"{depthwise.layer}/output_range"].shape == (2, 8)
    assert found[f"{depthwise.layer}/input_range"].shape == (2,)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    from examples.digits import write_digits
    from examples.digits_resnet import train_digits_resnet

    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "data")
    return folder, train_digits_resnet(folder / "data", folder / "model")


def test_a_trained_resnet_keeps_its_accuracy(digits):
    from evaluators.quality import stack_calls
    from workers.data import Columns, DataConfig, load_splits
    from workers.model import ModelConfig, load_model, load_structure

    folder, accuracy = digits
    assert accuracy > 0.96
    config = ModelConfig(id=str(folder / "model"), task="image-classification")
    loaded = load_model(config)
    assert load_structure(config) == loaded.structure
    data = DataConfig(
        source=str(folder / "data" / "test.jsonl"),
        columns=Columns(input="image"),
        calibration=256,
        search=256,
        holdout=256,
    )
    splits = load_splits(data, loaded.task, seed=0)
    examples = (*splits.search, *splits.holdout)
    labels = torch.tensor([example.label for example in examples])
    calibration = Calibration(
        loaded.structure.units, stack_calls(loaded.task, splits.calibration, batch=1), lambda: load_model(config).model
    )

    def accuracies(method: Method) -> list[float]:
        assembler = Assembler(
            loaded.model, loaded.structure, VariantMaker(loaded.model, loaded.structure.units, calibration, method).make
        )
        found = []
        for ratio, name in ((1.0, "w8a8s"), (0.5, "fp32"), (0.5, "w8a8s")):
            choices = {unit.name: Choice(int(ratio * unit.groups), name) for unit in loaded.structure.units}
            model = assembler.apply(Policy(choices))
            with torch.inference_mode():
                answers = model(**loaded.task.collate(examples)).logits.argmax(-1)
            found.append(float((answers == labels).float().mean()))
        assembler.apply(Policy({u.name: Choice(u.groups, "fp32") for u in loaded.structure.units}))
        return found

    int8, half, half_int8 = accuracies(Method())
    assert int8 > accuracy - 0.01
    assert half > accuracy - 0.03
    assert half_int8 > accuracy - 0.03
    assert accuracies(PLAIN)[1] < 0.6


@pytest.mark.parametrize("ranges", list(RangeMethod))
def test_static_ranges_are_chosen_as_asked(ranges):
    rig = _rig("basic", Method(ranges=ranges))
    found = rig.logits(rig.space.uniform_policies()["keep 1, w8a8s"])
    assert torch.nn.functional.cosine_similarity(found, rig.dense).mean() > 0.98
    name = "resnet.encoder.stages.0.layers.0.layer.0.convolution"
    tensors = rig.maker.make(rig.structure.unit("stage.0"), Choice(16, "w8a8s"))
    low, high = tensors[f"{name}/input_range"]
    widest = _rig("basic").maker.make(rig.structure.unit("stage.0"), Choice(16, "w8a8s"))[f"{name}/input_range"]
    assert widest[0] <= low <= 0 < high <= widest[1]
