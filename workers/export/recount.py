"""Bits and shapes of an artifact, counted from its files, and of the searched model that they should be.

Shape letters: O output features, K input features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from workers.export.early_exit.branch import graphs_of
from workers.export.layer_codecs import encode_layer
from workers.export.layer_forms import LayerForm
from workers.export.loading import load_folder, weights_file
from workers.export.measurement import WeightCount
from workers.targets.base import ONNX_FILE, ExportForm

_COUNTED = {
    ExportForm.ONNX: (LayerForm.INT8, LayerForm.INT4),
    ExportForm.HUGGING_FACE: tuple(form for form in LayerForm if form.value.startswith(("int", "float8"))),
}
"""Forms whose layers can be told from the file by themselves."""


def count_layers(model: nn.Module, form: ExportForm) -> dict[str, int]:
    """Count the quantized layers of an assembled or loaded model that can be told in files of a form.

    Returns:
        How many there are by storage and shape ("int8 1536x384").
    """
    found = []
    for layer in model.modules():
        encoded = encode_layer(layer)
        if encoded is not None and encoded[0].form in _COUNTED[form]:
            tensors = encoded[1]
            shape = tensors["weight_shape"].tolist() if "weight_shape" in tensors else tensors["weight"].shape
            found.append((encoded[0].form, tuple(shape)))
    return _named(found)


def count_files(folder: Path, form: ExportForm) -> WeightCount:
    """Count what the files of an artifact hold."""
    return _count_onnx(folder) if form is ExportForm.ONNX else _count_folder(folder)


def _count_onnx(folder: Path) -> WeightCount:
    import onnx

    graphs = list(graphs_of(onnx.load(folder / ONNX_FILE).graph))
    tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    nodes = [node for graph in graphs for node in graph.node]
    return WeightCount(
        bytes=sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in tensors.values()),
        quantized=_named(_onnx_layers(nodes, {name: tuple(tensor.dims) for name, tensor in tensors.items()})),
        runtime_operators=tuple(sorted({node.op_type for node in nodes if node.domain == "com.microsoft"})),
    )


def _onnx_layers(
    nodes: Iterable[Any], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[LayerForm, tuple[int, ...]]]:
    for node in nodes:
        if node.op_type == "MatMulInteger" and node.input[1] in shapes:
            yield LayerForm.INT8, shapes[node.input[1]][::-1]
        elif node.op_type == "MatMulNBits":
            sizes = {attribute.name: attribute.i for attribute in node.attribute}
            yield LayerForm.INT4, (sizes["N"], sizes["K"])


def _count_folder(folder: Path) -> WeightCount:
    from safetensors import safe_open

    with safe_open(weights_file(folder), framework="pt") as file:
        size = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    return WeightCount(bytes=size, quantized=count_layers(load_folder(folder), ExportForm.HUGGING_FACE))


def _named(layers: Iterable[tuple[LayerForm, tuple[int, ...]]]) -> dict[str, int]:
    counted = Counter(f"{form.value} {'x'.join(map(str, shape))}" for form, shape in layers)
    return dict(sorted(counted.items()))
