"""What stood in the way of an export: the operator that has no ONNX form, and the layer and unit that it belongs to."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from search_spaces.architectures import UnsupportedModelError
from search_spaces.units import ModelStructure
from workers.export.layer_forms import FolderError
from workers.export.skeleton import build_skeleton


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Where an export stopped.

    Attributes:
        operator: The operator without an ONNX form ("aten.special_bessel_j0.default"); None where the model could not
            even be traced.
        layer: The innermost module that it belongs to; None where that is not known.
        unit: Its unit; None where it lies outside all of them.
        reason: What the exporter says, in its first words.
    """

    operator: str | None
    layer: str | None
    unit: str | None
    reason: str

    def __str__(self) -> str:
        what = f"operator {self.operator}" if self.operator else "it can't be traced"
        place = f"unit {self.unit}" if self.unit else "outside all units"
        where = "" if self.layer is None else f" in {self.layer} ({place})"
        return f"{what}{where}: {self.reason}"


def find_obstacle(error: BaseException, wrapped: nn.Module, model: nn.Module) -> Obstacle:
    """Read off the exporter's error where it stopped.

    Args:
        error: What the exporter raised.
        wrapped: The module that was traced.
        model: The model inside it.
    """
    operator, layer, reason = None, None, ""
    names = {id(module): name for name, module in model.named_modules()}
    prefix = next((name for name, module in wrapped.named_modules() if module is model), "")
    for link in _chain(error):
        reason = (str(link).strip() or type(link).__name__).splitlines()[0]
        for frame, _ in traceback.walk_tb(link.__traceback__):
            node, module = frame.f_locals.get("node"), frame.f_locals.get("self")
            if isinstance(node, torch.fx.Node):
                operator = str(node.target)
                stack: Any = list((node.meta.get("nn_module_stack") or {}).values())
                layer = stack[-1][0].removeprefix(prefix).lstrip(".") if stack else None
            elif isinstance(module, nn.Module) and names.get(id(module)):
                layer = names[id(module)]
    return Obstacle(operator=operator, layer=layer, unit=_unit_of(layer, model), reason=reason)


def unit_of_layer(layer: str, structure: ModelStructure) -> str | None:
    """Name of the unit that a module belongs to; None where it lies outside all of them."""
    found = [
        (len(place), unit.name)
        for unit in structure.units
        for place in (*unit.layers, *([unit.branch.module] if unit.branch else []))
        if layer == place or layer.startswith(f"{place}.")
    ]
    return max(found)[1] if found else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _unit_of(layer: str | None, model: nn.Module) -> str | None:
    config: Any = getattr(model, "config", None)
    if layer is None or config is None:
        return None
    try:
        return unit_of_layer(layer, build_skeleton(config, type(model).__name__).structure)
    except (FolderError, UnsupportedModelError):
        return None
