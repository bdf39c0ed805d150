"""What every contestant starts from: the dense model, its plain export, and the examples."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from controller.job import JobSpec
from evaluators.tasks import Example, Task
from workers.data import Splits, load_splits
from workers.export.onnx_layers import OPSET
from workers.model import LoadedModel, load_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a peer is given.

    Attributes:
        job: Our job: the model, the data, the workload that is timed.
        loaded: The dense model.
        splits: Peers calibrate on `calibration`; those that score candidates do so on `search`, as ours does.
        stock: The dense model as torch exports it.
        folder: Takes what peers write.
    """

    job: JobSpec
    loaded: LoadedModel
    splits: Splits
    stock: Path
    folder: Path

    @property
    def dev(self) -> tuple[Example, ...]:
        """All examples that are scored: those that searches see, then those that they do not."""
        return (*self.splits.search, *self.splits.holdout)


def prepare(job: JobSpec, folder: Path) -> Material:
    """Read model and data and export the dense model.

    Args:
        job: A text classification job.
        folder: Takes what is written; made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loaded = load_model(job.model)
    splits = load_splits(job.data, loaded.task, seed=job.search.seed)
    stock = folder / "stock.onnx"
    export_stock(loaded.model, loaded.task, stock)
    return Material(job=job, loaded=loaded, splits=splits, stock=stock, folder=folder)


def export_stock(model: nn.Module, task: Task, path: Path) -> None:
    """Write a model as ONNX by torch's exporter alone, opset 20, batch and length dynamic.

    The exporter's notes on shapes are left out: onnxruntime's quantizers contradict them and stop.

    Args:
        model: A model of transformers with eager attention, in evaluation mode.
        task: Says which inputs there are.
        path: The file to write.
    """
    inputs = task.random_inputs(2, 32, seed=0)
    axes = {name: dict.fromkeys(task.dynamic_axes[name], torch.export.Dim.DYNAMIC) for name in inputs}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (),
            kwargs=inputs,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=axes,
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    _drop_value_notes(path)


def write_examples(examples: Sequence[Example], path: Path) -> None:
    """Write encoded examples as JSON lines for programs that can't import ours."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            inputs = {name: tensor.tolist() for name, tensor in example.inputs.items()}
            file.write(json.dumps({"inputs": inputs, "label": example.label}) + "\n")


def _drop_value_notes(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save(model, path)
