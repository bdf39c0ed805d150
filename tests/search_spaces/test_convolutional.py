import copy
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from evaluators.size import size_bytes
from search_spaces.architectures import UnsupportedModelError, structure_of
from search_spaces.channels import ChannelLayerKind, ChannelUnit
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, SpaceConfig, SpaceError, build_space
from search_spaces.units import UnitKind
from workers.targets import TARGETS

_RESNET = {"embedding_size": 16, "depths": [2, 2], "num_channels": 1, "image_size": 16, "num_labels": 3}
_CONFIGS: dict[str, Any] = {
    "basic": lambda: transformers.ResNetConfig(layer_type="basic", hidden_sizes=[16, 32], **_RESNET),
    "bottleneck": lambda: transformers.ResNetConfig(layer_type="bottleneck", hidden_sizes=[32, 64], **_RESNET),
    "mobilenet": lambda: transformers.MobileNetV2Config(
        depth_multiplier=0.1, finegrained_output=False, image_size=32, num_labels=3
    ),
    "mobilenet_torch_padding": lambda: transformers.MobileNetV2Config(
        depth_multiplier=0.1,
        finegrained_output=False,
        image_size=48,
        num_labels=3,
        tf_padding=False,
        first_layer_is_expansion=False,
    ),
}
FAMILIES = tuple(_CONFIGS)


def tiny_model(family: str, *, device: str = "cpu") -> nn.Module:
    """A random model whose batch normalisation has seen data."""
    config = _CONFIGS[family]()
    is_resnet = isinstance(config, transformers.ResNetConfig)
    kind = transformers.ResNetForImageClassification if is_resnet else transformers.MobileNetV2ForImageClassification
    torch.manual_seed(0)
    with torch.device(device):
        model = kind(config).eval()
    for module in model.modules() if device == "cpu" else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def pixels(model: nn.Module, count: int) -> torch.Tensor:
    config: Any = model.config
    shape = (count, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def space_of(model: nn.Module, **fields: Any) -> SearchSpace:
    target = TARGETS.get("cpu-onnxruntime")
    structure = structure_of(model)
    return build_space(structure, SpaceConfig(**fields), target_formats=target.formats, channel_multiple=8)


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_changes_nothing(family):
    model = tiny_model(family).double()
    inputs = pixels(model, 4).double()
    with torch.inference_mode():
        before = model(pixel_values=inputs).logits
    structure = structure_of(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(pixel_values=inputs).logits, before, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    weights = copy.deepcopy(model.state_dict())
    assert structure_of(model) == structure
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_description_without_weights_is_the_same(family):
    assert structure_of(tiny_model(family, device="meta")) == structure_of(tiny_model(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_exactly(family):
    model = tiny_model(family)
    space = space_of(model)
    assert size_bytes(space.structure, space.dense_policy()) == 4 * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_listed_once_with_the_sizes_that_it_has(family):
    model = tiny_model(family)
    structure = structure_of(model)
    listed = [layer for unit in structure.units for layer in unit.channel_layers]
    expected = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert sorted(layer.layer for layer in listed) == sorted(expected)
    groups = {unit.name: unit.groups for unit in structure.units}
    seen = {}

    def watch(name):
        return lambda _module, _inputs, output: seen.__setitem__(name, output.shape)

    for name in expected:
        model.get_submodule(name).register_forward_hook(watch(name))
    with torch.inference_mode():
        model(pixel_values=pixels(model, 1))
    for layer in listed:
        weight = model.get_submodule(layer.layer).weight
        assert weight[0].numel() == layer.in_channels * layer.kernel**2
        assert len(weight) == layer.out_channels
        assert layer.rows is None or groups[layer.rows] == layer.out_channels
        if layer.kind is ChannelLayerKind.DEPTHWISE:
            assert layer.rows == layer.columns
        elif layer.columns is not None:
            assert groups[layer.columns] == layer.in_channels
        if layer.kind is not ChannelLayerKind.LINEAR:
            assert seen[layer.layer][2:] == (layer.height, layer.width)


def test_units_of_a_basic_resnet():
    units = {unit.name: unit for unit in structure_of(tiny_model("basic")).units}
    assert list(units) == [
        "stage.0",
        "stage.0.layer.0.inner.0",
        "stage.0.layer.1.inner.0",
        "stage.1.layer.0.inner.0",
        "stage.1",
        "stage.1.layer.1.inner.0",
    ]
    assert all(unit.kind is UnitKind.CONVOLUTION for unit in units.values())
    stem, *_ = units["stage.0"].channel_layers
    assert (stem.layer, stem.columns, stem.activation) == ("resnet.embedder.embedder.convolution", None, "relu")
    assert units["stage.1"].inputs == ("stage.1.layer.0.inner.0", "stage.0", "stage.1.layer.1.inner.0")
    classifier = units["stage.1"].channel_layers[-1]
    assert (classifier.layer, classifier.rows, classifier.columns) == ("classifier.1", None, "stage.1")
    assert [len(units[name].sums) for name in ("stage.0", "stage.1")] == [2, 2]


def test_a_residual_branch_is_left_out_where_one_unit_is_all_of_it():
    inner = [unit for unit in structure_of(tiny_model("basic")).units if unit.branch is not None]
    assert len(inner) == 4
    assert inner[0].branch.module == "resnet.encoder.stages.0.layers.0.layer"
    assert all(unit.branch is None for unit in structure_of(tiny_model("bottleneck")).units)


def test_depthwise_layers_follow_their_channels():
    units = {unit.name: unit for unit in structure_of(tiny_model("mobilenet")).units}
    kinds = [layer.kind for layer in units["layer.3.expanded"].channel_layers]
    assert kinds == [ChannelLayerKind.CONVOLUTION, ChannelLayerKind.DEPTHWISE]
    assert units["layer.3.expanded"].channel_layers[1].activation == "relu6"
    assert len(units["layer.2"].sums) == 2
    assert [layer.rows for layer in units["head"].channel_layers] == ["head", None]


def test_tensorflow_padding_is_absorbed_where_it_is_the_same_on_both_sides():
    model = tiny_model("mobilenet")
    structure_of(model)
    layer = model.mobilenet_v2.layer[1]
    assert layer.conv_3x3.convolution.padding == (1, 1)
    assert not layer.expand_1x1.config.tf_padding
    assert model.mobilenet_v2.layer[0].conv_3x3.config.tf_padding
    assert model.config.tf_padding


def test_formats_are_those_of_convolutions():
    space = space_of(tiny_model("basic"))
    assert {unit_space.formats for unit_space in space.unit_spaces} == {("fp32", "w8a8s")}
    with pytest.raises(SpaceError, match=r"'w8a8' has none for the convolution layers .*; choose from fp32, w8a8s"):
        space_of(tiny_model("basic"), formats=("fp32", "w8a8"))


def test_shapes_under_a_policy_depend_on_both_units():
    structure = structure_of(tiny_model("basic"))
    policy = Policy({u.name: Choice(u.groups, "fp32") for u in structure.units})
    policy = policy.replace(**{"stage.1": Choice(24, "w8a8s"), "stage.1.layer.0.inner.0": Choice(8, "fp32")})
    unit = structure.unit("stage.1")
    assert isinstance(unit, ChannelUnit)
    cuts = {cut.layer.layer.rpartition("stages.1.")[2]: cut for cut in unit.cut(policy, "fp32")}
    second = cuts["layers.0.layer.1.convolution"]
    assert (second.out_channels, second.in_channels, second.in_columns) == (24, 8, 72)
    assert (second.format, second.input_format) == ("w8a8s", "fp32")
    classifier = cuts["classifier.1"]
    assert (classifier.out_channels, classifier.in_channels, classifier.format) == (3, 24, "fp32")


def test_a_model_without_an_image_size_is_refused():
    model = tiny_model("basic")
    model.config.image_size = None
    with pytest.raises(UnsupportedModelError, match="set it to what the image processor makes"):
        structure_of(model)
