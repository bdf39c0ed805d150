"""The dense model of a configuration, without its weights: what a folder's layers are described against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from search_spaces.architectures import UnsupportedModelError, structure_of
from search_spaces.units import ModelStructure
from workers.export.layer_forms import FolderError

_MOST_PIXELS = 2**26
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "num_decoder_layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """A dense model whose parameters hold nothing yet.

    Attributes:
        model: The model, rewired as its architecture needs it, in evaluation mode.
        structure: Its units.
        names: Names of modules to the names that transformers gives them, where rewiring changed these.
        plain_shapes: What transformers' own model of the configuration stores: names and shapes.
    """

    model: nn.Module
    structure: ModelStructure
    names: Mapping[str, str]
    plain_shapes: Mapping[str, tuple[int, ...]]

    def stored_name(self, module: str, tensor: str) -> str:
        """Name of a module's tensor in a file."""
        module = self.names.get(module, module)
        return f"{module}.{tensor}" if module else tensor


def build_skeleton(config: Any, model_class: str, *, most_layers: int | None = None) -> Skeleton:
    """Build the model of a configuration; its weights take no memory until they are written.

    Args:
        config: A transformers configuration; it is changed.
        model_class: Name of the class, one that transformers has for a registered task.
        most_layers: Layers that the configuration may name at most; None for any number.

    Raises:
        FolderError: No such class, or a model that can't be built.
        UnsupportedModelError: No architecture module describes it.
    """
    from transformers.initialization import no_init_weights

    found = _class_of(config, model_class)
    _check_size(config, most_layers)
    try:
        with no_init_weights():
            model: Any = found._from_config(config, attn_implementation="eager", dtype=torch.float32)
        model.tie_weights()
        model.eval().requires_grad_(False)
        plain_shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        before = {id(module): name for name, module in model.named_modules()}
        structure = structure_of(model)
    except UnsupportedModelError:
        raise
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise FolderError(f"config.json describes no {model_class} that can be built: {error}") from error
    names = {name: before[id(module)] for name, module in model.named_modules() if before.get(id(module), name) != name}
    return Skeleton(model=model, structure=structure, names=names, plain_shapes=plain_shapes)


def _class_of(config: Any, name: str) -> Any:
    """The class, if it is one of those that registered tasks load for the configuration: never just any."""
    from evaluators.tasks import TASKS
    from evaluators.tasks.base import auto_model_of

    known: dict[str, Any] = {}
    for task in TASKS:
        mapping = auto_model_of(TASKS.get(task))._model_mapping
        if type(config) in mapping:
            entry = mapping[type(config)]
            known |= {found.__name__: found for found in (entry if isinstance(entry, tuple | list) else (entry,))}
    if name not in known:
        raise FolderError(
            f"models of type {config.model_type!r} are of the classes {sorted(known)}; got {name!r}; export it again"
        )
    return known[name]


def _check_size(config: Any, most_layers: int | None) -> None:
    """Refuse a configuration of absurd sizes before anything is built from it."""
    layers = [getattr(config, name, None) or 0 for name in _LAYER_COUNTS]
    layers.append(sum(getattr(config, "depths", None) or ()))
    if most_layers is not None and max(layers) > most_layers:
        raise FolderError(f"each layer has tensors in the file; got {max(layers)} layers for {most_layers} tensors")
    size = getattr(config, "image_size", None) or 0
    height, width = (size, size) if isinstance(size, int) else size
    if height * width > _MOST_PIXELS:
        raise FolderError(f"images have at most {_MOST_PIXELS} pixels; got image_size={size}")
