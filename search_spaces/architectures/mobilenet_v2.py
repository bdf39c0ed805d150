"""MobileNetV2: inverted residual layers with depthwise convolutions."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES, Architecture
from search_spaces.architectures.blocks import layer_names
from search_spaces.architectures.convolutional import (
    ChannelGroup,
    channel_units,
    example_input,
    fold_normalization,
)
from search_spaces.units import FixedPart, Unit

if TYPE_CHECKING:
    from torch import nn

_LAYER = re.compile(r"mobilenet_v2\.(conv_stem|layer\.\d+)\.(\w+)\.convolution")


class MobileNetV2(Architecture):
    """Units of a MobileNetV2 with a classification head: expanded channels, and those between the layers."""

    def prepare(self, model: nn.Module) -> None:
        """Fold batch normalisation, and let convolutions pad by themselves where both sides get the same.

        TensorFlow's padding is a layer of its own before each convolution otherwise, also where there is none to add,
        and parts the integer kernels.
        """
        fold_normalization(model)
        _absorb_padding(model)

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """Expanded channels of each layer and channels between layers, in the order of the data."""
        layers: Any = model.get_submodule("mobilenet_v2.layer")
        sums: dict[str, str | None] = {
            f"mobilenet_v2.layer.{index}.reduce_1x1.convolution": None
            for index, layer in enumerate(layers)
            if layer.use_residual
        }
        return channel_units(model, name=_name, sums=sums, branches={})

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """None: every layer reads channels of a unit."""
        return ()

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Stem, residual layers and the last convolution."""
        layers = layer_names(model, "mobilenet_v2.layer")
        return (("mobilenet_v2.conv_stem", *layers, "mobilenet_v2.conv_1x1"),)

    def tokens(self, config: Any) -> int | None:
        """An image counts as one."""
        return 1

    def max_tokens(self, config: Any) -> int | None:
        """An image counts as one."""
        return 1


def _absorb_padding(model: nn.Module) -> None:
    import torch

    sizes: dict[nn.Module, tuple[int, int]] = {}

    def watch(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        sizes[layer] = (inputs[0].shape[2], inputs[0].shape[3])

    layers: list[Any] = [module for module in model.modules() if hasattr(module, "convolution")]
    handles = [layer.register_forward_pre_hook(watch) for layer in layers if layer.config.tf_padding]
    if not handles:
        return
    try:
        with torch.no_grad():
            model(pixel_values=example_input(model))
    finally:
        for handle in handles:
            handle.remove()
    for padded, size in sizes.items():
        layer: Any = padded
        added = [_padding(layer.convolution, axis, length) for axis, length in enumerate(size)]
        if all(total % 2 == 0 for total in added):
            layer.convolution.padding = tuple(total // 2 for total in added)
            layer.config = copy.copy(layer.config)
            layer.config.tf_padding = False


def _padding(convolution: Any, axis: int, length: int) -> int:
    """Rows or columns that TensorFlow adds so that every `stride` of the input gives one of the output."""
    kernel, stride = convolution.kernel_size[axis], convolution.stride[axis]
    total = max(kernel - (length % stride or stride), 0) * convolution.dilation[axis]
    return int(total)


def _name(group: ChannelGroup) -> str:
    """Name a group by its first producer: the layer's output, or its expanded channels."""
    match = _LAYER.fullmatch(group.producers[0])
    if match is None:
        return "head"
    place = match[1].replace("conv_stem", "stem")
    if match[2] == "first_conv" and len(group.producers) == 1:
        return f"{place}.first"
    return place if match[2] == "reduce_1x1" else f"{place}.expanded"


ARCHITECTURES.register("mobilenet_v2")(MobileNetV2())
