"""Layer by layer: where an exported model begins to differ from the searched one.

Exported files name the output of each layer as the layer is named, so that any of them can be looked at from outside.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.units import ModelStructure

_SCOPES = "pkg.torch.onnx.name_scopes"
LIMIT = 0.1
"""Relative error from which on a layer deviates: a cosine of 0.995."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDifference:
    """What a layer's output is in the file, beside the searched model's.

    Attributes:
        unit: Name of its unit.
        layer: Name of the layer.
        relative_error: Norm of the difference over the norm of the searched output.
    """

    unit: str
    layer: str
    relative_error: float


def name_layer_outputs(graph_model: Any, *, prefix: str) -> None:
    """Give the last value that each layer computes the layer's name.

    Args:
        graph_model: The exporter's intermediate representation with its notes on scopes, changed in place.
        prefix: Module of the traced one that holds the model.
    """
    last: dict[str, Any] = {}
    for node in graph_model.graph.all_nodes():
        # The note ends with the name of the traced node.
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))[:-1]
        if scopes and scopes[-1].startswith(f"{prefix}."):
            last[scopes[-1].removeprefix(f"{prefix}.")] = node.outputs[0]
    outputs = {id(value) for value in graph_model.graph.outputs}
    for name, value in last.items():
        if id(value) not in outputs:
            value.name = name


def layer_differences(
    path: Path, model: nn.Module, structure: ModelStructure, inputs: Mapping[str, Tensor]
) -> list[LayerDifference]:
    """Run the file and the searched model on the same inputs, and compare the outputs of all units.

    Args:
        path: File that `export_onnx` wrote.
        model: The assembled model that it should be.
        structure: Units of the model.
        inputs: A batch, by input name.

    Returns:
        One entry for each layer that ends a unit and is in both, in the order in which the model runs them.
    """
    units = _last_layers(structure)
    searched = _outputs_of(model, units, inputs)
    exported = _outputs_in(path, list(searched), inputs)
    return [
        LayerDifference(unit=units[name], layer=name, relative_error=_relative(exported[name], value))
        for name, value in searched.items()
        if name in exported
    ]


def describe_deviation(differences: Sequence[LayerDifference], *, limit: float = LIMIT) -> str:
    """Say in words which unit deviates first, or that no unit does by itself.

    Args:
        differences: In the order in which the model runs them.
        limit: Relative error from which on a layer deviates.
    """
    for difference in differences:
        if not difference.relative_error < limit:
            return (
                f"the first unit to deviate is {difference.unit} ({difference.layer}, relative error "
                f"{difference.relative_error:.3g})"
            )
    if not differences:
        return "no layer of a unit is in both models, so that none can be named"
    worst = max(differences, key=lambda difference: difference.relative_error)
    return f"no unit deviates by itself; the largest relative error is {worst.relative_error:.3g}, of {worst.unit}"


def _last_layers(structure: ModelStructure) -> dict[str, str]:
    """Layers at the ends of units: output projections, and convolutions one by one."""
    found = {}
    for unit in structure.units:
        for layer in (unit.consumer,) if unit.consumer else unit.layers:
            found[layer] = unit.name
    return found


def _outputs_of(model: nn.Module, names: Mapping[str, str], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with _watched(model, names, found), torch.inference_mode():
        model(**inputs)
    return found


@contextmanager
def _watched(model: nn.Module, names: Mapping[str, str], found: dict[str, Tensor]) -> Iterator[None]:
    handles = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output.clone()

        return hook

    for name, module in model.named_modules():
        if name in names:
            handles.append(module.register_forward_hook(watch(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _outputs_in(path: Path, names: Sequence[str], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import onnx

    from workers.targets.onnxruntime_cpu import open_session

    graph_model = onnx.load(path)
    made = {output for node in graph_model.graph.node for output in node.output}
    wanted = [name for name in names if name in made]
    if not wanted:
        return {}
    graph_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = open_session(graph_model.SerializeToString(), threads=1)
    feeds = {node.name: inputs[node.name].numpy() for node in session.get_inputs()}
    return {name: torch.from_numpy(value) for name, value in zip(wanted, session.run(wanted, feeds), strict=True)}


def _relative(exported: Tensor, searched: Tensor) -> float:
    if exported.numel() != searched.numel():
        return float("inf")
    difference = (exported.flatten() - searched.flatten()).norm()
    return float(difference / searched.norm().clamp(min=torch.finfo(torch.float32).tiny))
