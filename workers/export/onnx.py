"""Export of an assembled model to an ONNX file that ONNX Runtime runs with the kernels of each format."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.tasks import Task
from workers.export.compare import name_layer_outputs
from workers.export.early_exit.branch import TRACED_OUTPUTS, branch_at_exit
from workers.export.early_exit.exiting_model import EarlyExit, ExitingModel
from workers.export.onnx_failure import find_obstacle
from workers.export.onnx_layers import OPSET, onnx_layers
from workers.export.onnx_positions import onnx_positions
from workers.export.onnx_rewrites import rewrite_for_runtime

_NOISY_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


class ExportError(RuntimeError):
    """The model has no ONNX form, or the exported file is not what was searched."""


class _Logits(nn.Module):
    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def export_onnx(
    model: nn.Module, task: Task, inputs: Mapping[str, Tensor], path: Path, *, early_exit: EarlyExit | None = None
) -> None:
    """Write a model as ONNX, opset 20, with dynamic axes as the task names them.

    Args:
        model: An assembled model in evaluation mode; it is as before when this returns.
        task: Says which axes vary.
        inputs: A batch of at least two examples, by input name; only shapes and types are used.
        path: The file to write.
        early_exit: Where calls leave whose examples are clear by then; None writes the model as it is.

    Raises:
        ExportError: An operator has no ONNX form; the message carries the exporter's own.
    """
    names = tuple(inputs)
    axes = {name: dict(task.dynamic_axes[name]) for name in names}
    wrapped = (_Logits(model, names) if early_exit is None else ExitingModel(model, names, early_exit)).eval()
    with onnx_layers(model), onnx_positions(model), _quiet(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                wrapped,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(tuple(axes.values()),),
                input_names=list(names),
                output_names=["logits"] if early_exit is None else list(TRACED_OUTPUTS),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(
                f"the model has no ONNX form: {find_obstacle(error, wrapped, model)}; replace it in the model, or "
                "export to a Hugging Face folder alone"
            ) from error
        name_layer_outputs(program.model, prefix="model")
        _strip(program.model)
        rewrite_for_runtime(program.model)
        program.save(str(path))
    if early_exit is not None:
        _branch(path)


def _branch(path: Path) -> None:
    import onnx

    found = onnx.load(path)
    branch_at_exit(found)
    onnx.save(found, path)


def _strip(model: Any) -> None:
    """Drop the exporter's notes on where nodes came from: stack traces, larger than small models."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence notes of the exporter on packages that it would like to have."""
    levels = {name: logging.getLogger(name).level for name in _NOISY_LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
