"""What a training can be put back to: tensors, counters, and files that hold both."""

from __future__ import annotations

import copy
import io
import os
import pickle
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workers.recovery.layers import quantized_layers

SCHEMA_VERSION = 1
CHECKPOINT_NAME = "training.checkpoint"


class CheckpointError(ValueError):
    """A checkpoint can't be read, or belongs to another training."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """How far a training is.

    Attributes:
        step: Steps done in all.
        rate_factor: What the learning rate is multiplied with: halved at each return to a good state.
        rollbacks: Returns to a good state.
        evaluations: Times scored.
        waited: Scores since the best one.
        best: (metric, minus divergence from the dense model) of the best state.
        best_step: Steps after which it was reached; 0 is the start.
        history: (step, metric) of each score.
        finished: Whether training is over.
    """

    step: int = 0
    rate_factor: float = 1.0
    rollbacks: int = 0
    evaluations: int = 0
    waited: int = 0
    best: tuple[float, float] = (float("-inf"), float("-inf"))
    best_step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    finished: bool = False


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all that training changes: parameters with gradients, and zero points."""
    found: dict[str, Tensor] = {name: part for name, part in model.named_parameters() if part.requires_grad}
    found |= {name: part for name, part in model.named_buffers() if name.endswith("zeros_ON")}
    return {name: tensor.detach().cpu().clone() for name, tensor in found.items()}


def bits_of(model: nn.Module) -> list[int | None]:
    """Bits that each quantized layer is rounded to now."""
    return [layer.bits for layer in quantized_layers(model)]


@torch.no_grad()
def put_back(model: nn.Module, tensors: dict[str, Tensor], bits: list[int | None]) -> None:
    """Undo training: put tensors and bits back as they were.

    Raises:
        CheckpointError: They belong to another model.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    layers = quantized_layers(model)
    wrong = [name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape]
    if wrong or len(bits) != len(layers):
        raise CheckpointError(
            f"a checkpoint belongs to one model and policy; got other tensors ({', '.join(wrong[:3]) or 'layers'}); "
            "delete it and train anew"
        )
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
    for layer, value in zip(layers, bits, strict=True):
        layer.bits = value


def write_checkpoint(path: Path, identity: str, counters: Counters, tensors: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    content = {"schema_version": SCHEMA_VERSION, "identity": identity, "counters": asdict(counters), **tensors}
    data = io.BytesIO()
    torch.save(content, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    with os.fdopen(handle, "wb") as file:
        file.write(data.getbuffer())
    Path(name).replace(path)


def read_checkpoint(path: Path, identity: str) -> tuple[Counters, dict[str, Any]]:
    """Read what `write_checkpoint` wrote.

    Raises:
        CheckpointError: It can't be read, is of another version, or belongs to another training.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = content["schema_version"] == SCHEMA_VERSION and content["identity"] == identity
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is no checkpoint that can be read: {error}; delete it and train anew") from error
    if not known:
        raise CheckpointError(f"{path} belongs to another training or release; delete it and train anew")
    counters = content["counters"]
    pairs = {"best": tuple(counters["best"]), "history": [(step, value) for step, value in counters["history"]]}
    return Counters(**{**counters, **pairs}), content


def optimizer_copy(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state, apart from what it goes on changing."""
    return copy.deepcopy(optimizer.state_dict())
