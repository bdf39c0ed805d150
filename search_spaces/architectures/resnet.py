"""ResNet: stages of residual layers, basic or bottleneck."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES, Architecture
from search_spaces.architectures.blocks import layer_names
from search_spaces.architectures.convolutional import ChannelGroup, channel_units, fold_normalization
from search_spaces.units import FixedPart, Unit

if TYPE_CHECKING:
    from torch import nn

_IN_LAYER = re.compile(r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution")
_SHORTCUT = re.compile(r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution")


class ResNet(Architecture):
    """Units of a ResNet with a classification head: the channels of each stage, and those inside each layer."""

    def prepare(self, model: nn.Module) -> None:
        """Fold batch normalisation."""
        fold_normalization(model)

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """Channels of the stages and within layers, in the order of the data."""
        last: dict[str, str | None] = {}
        branches: dict[str, str] = {}
        encoder: Any = model.get_submodule("resnet.encoder")
        for stage, stage_module in enumerate(encoder.stages):
            for index, layer in enumerate(stage_module.layers):
                prefix, depth = f"resnet.encoder.stages.{stage}.layers.{index}", len(layer.layer)
                last[f"{prefix}.layer.{depth - 1}.convolution"] = f"{prefix}.activation"
                if depth == 2:
                    branches[f"{prefix}.layer.0.convolution"] = f"{prefix}.layer"
        return channel_units(model, name=lambda group: _name(group, set(last)), sums=last, branches=branches)

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """None: every layer reads channels of a unit."""
        return ()

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Stem and residual layers."""
        encoder: Any = model.get_submodule("resnet.encoder")
        stages = [f"resnet.encoder.stages.{stage}.layers" for stage in range(len(encoder.stages))]
        return (("resnet.embedder", *(name for stage in stages for name in layer_names(model, stage))),)

    def tokens(self, config: Any) -> int | None:
        """An image counts as one."""
        return 1

    def max_tokens(self, config: Any) -> int | None:
        """An image counts as one."""
        return 1


def _name(group: ChannelGroup, last: set[str]) -> str:
    """Name a group by its stage, or its place inside a layer."""
    for layer in group.producers:
        if (match := _SHORTCUT.fullmatch(layer)) or (layer in last and (match := _IN_LAYER.fullmatch(layer))):
            return f"stage.{match[1]}"
    match = _IN_LAYER.fullmatch(group.producers[0])
    return f"stage.{match[1]}.layer.{match[2]}.inner.{match[3]}" if match else "stem"


ARCHITECTURES.register("resnet")(ResNet())
