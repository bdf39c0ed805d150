"""Where an exported model deviates, and why a model has no ONNX form: the unit is named."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from search_spaces.policy import Choice, Policy
from workers.assemble import Assembler
from workers.export.compare import LayerDifference, describe_deviation, layer_differences
from workers.export.onnx import ExportError, export_onnx
from workers.export.onnx_failure import unit_of_layer
from workers.model import LoadedModel, load_model
from workers.variants import VariantMaker


@pytest.fixture(scope="module")
def loaded(tiny_image: Any) -> LoadedModel:
    """The model with one branch left out and one unit in int8."""
    found = load_model(tiny_image.model)
    policy = Policy(
        {
            "layer.0.attention": Choice(3, "fp32"),
            "layer.0.feed_forward": Choice(48, "fp32"),
            "layer.1.attention": Choice(0, "fp32"),
            "layer.1.feed_forward": Choice(64, "w8a8"),
        }
    )
    maker = VariantMaker(found.model, found.structure.units, None)
    Assembler(found.model, found.structure, maker.make).apply(policy)
    return found


@pytest.fixture(scope="module")
def path(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(loaded.model, loaded.task, loaded.task.random_inputs(2, 8, seed=0), found)
    return found


def _differences(loaded: LoadedModel, path: Path) -> list[LayerDifference]:
    return layer_differences(path, loaded.model, loaded.structure, loaded.task.random_inputs(3, 8, seed=1))


def test_every_unit_that_is_there_is_compared(loaded: LoadedModel, path: Path) -> None:
    differences = _differences(loaded, path)
    assert [d.unit for d in differences] == ["layer.0.attention", "layer.0.feed_forward", "layer.1.feed_forward"]
    assert all(d.relative_error < 1e-2 for d in differences)
    assert describe_deviation(differences).startswith("no unit deviates by itself; the largest relative error is ")


@pytest.mark.parametrize(
    ("damaged", "unit", "layer"),
    [
        ("vit.layers.0.mlp.fc1", "layer.0.feed_forward", "vit.layers.0.mlp.fc2"),
        ("vit.layers.0.attention.v_proj", "layer.0.attention", "vit.layers.0.attention.o_proj"),
    ],
)
def test_first_unit_that_differs_is_named(
    loaded: LoadedModel, path: Path, tmp_path: Path, damaged: str, unit: str, layer: str
) -> None:
    model = onnx.load(path)
    node = next(node for node in model.graph.node if damaged in node.output)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name in node.input)
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    onnx.save(model, tmp_path / "damaged.onnx")
    said = describe_deviation(_differences(loaded, tmp_path / "damaged.onnx"))
    assert said.startswith(f"the first unit to deviate is {unit} ({layer}, relative error ")


def test_nothing_to_compare_is_said() -> None:
    assert "none can be named" in describe_deviation([])
    broken = [LayerDifference(unit="u", layer="l", relative_error=float("nan"))]
    assert "first unit to deviate is u" in describe_deviation(broken)


class _WithoutForm(nn.Module):
    """An activation function that ONNX has no operator for."""

    def forward(self, input: Tensor) -> Tensor:
        found: Tensor = torch.special.bessel_j0(input)
        return found


class _Untraceable(nn.Module):
    """An activation function that depends on values."""

    def forward(self, input: Tensor) -> Tensor:
        return input.relu() if input.sum() > 0 else input


@pytest.mark.parametrize(
    ("place", "activation", "message"),
    [
        (
            "vit.layers.1.mlp.activation_fn",
            _WithoutForm(),
            r"no ONNX form: operator prims\.bessel_j0\.default in vit\.layers\.1\.mlp\.activation_fn "
            r"\(unit layer\.1\.feed_forward\): No ONNX function found",
        ),
        (
            "vit.layers.0.mlp.activation_fn",
            _Untraceable(),
            r"no ONNX form: it can't be traced in vit\.layers\.0\.mlp\.activation_fn \(unit layer\.0\.feed_forward\)",
        ),
    ],
)
def test_operator_without_an_onnx_form_is_named_with_its_unit(
    tiny_image: Any, tmp_path: Path, place: str, activation: nn.Module, message: str
) -> None:
    fresh = load_model(tiny_image.model)
    fresh.model.set_submodule(place, activation, strict=True)
    with pytest.raises(ExportError, match=message):
        export_onnx(fresh.model, fresh.task, fresh.task.random_inputs(2, 8, seed=0), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_unit_of_a_layer(loaded: LoadedModel) -> None:
    assert unit_of_layer("vit.layers.1.attention.q_proj", loaded.structure) == "layer.1.attention"
    assert unit_of_layer("vit.layers.1.mlp", loaded.structure) == "layer.1.feed_forward"
    assert unit_of_layer("vit.layers.1", loaded.structure) is None
    assert unit_of_layer("classifier", loaded.structure) is None
