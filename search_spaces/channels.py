"""Channels of feature maps as units: layers that lie between two of them, and their shapes under a policy."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from search_spaces.formats import LayerType
from search_spaces.policy import Choice, Policy
from search_spaces.units import Producer, Unit, UnitKind


class ChannelLayerKind(StrEnum):
    """What a layer computes."""

    CONVOLUTION = "convolution"
    """Every output channel reads every input channel."""
    DEPTHWISE = "depthwise"
    """Every channel by itself."""
    LINEAR = "linear"
    """A matrix product over pooled channels, as in a classifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLayer:
    """A layer whose rows belong to one unit and whose columns belong to another.

    Attributes:
        layer: Module name in the model.
        kind: What it computes.
        rows: Name of the unit that it produces, which also gives its format; None where its outputs are no channels
            of a unit, so that it stays in the base format.
        columns: Name of the unit that it consumes; None for the model's input. A depthwise layer has the same unit
            on both sides.
        out_channels: Dense output channels.
        in_channels: Dense input channels that one output reads; 1 for a depthwise layer.
        kernel: Side of the kernel; 1 for a linear layer.
        stride: Step of the kernel.
        height: Rows of the output.
        width: Columns of the output.
        activation: The function right behind it, where that is a clamp ("relu", "relu6") which a static output range
            does by itself; else None.
        activation_module: Its module.
        bias: Whether it has a bias.
    """

    layer: str
    kind: ChannelLayerKind
    rows: str | None
    columns: str | None
    out_channels: int
    in_channels: int
    kernel: int
    stride: int
    height: int
    width: int
    activation: str | None = None
    activation_module: str | None = None
    bias: bool = True

    @property
    def home(self) -> str:
        """The unit whose variants hold the layer: the one it consumes, or else the one it produces."""
        name = self.columns or self.rows
        assert name is not None, self.layer
        return name

    @property
    def columns_per_channel(self) -> int:
        """Columns of the flattened weight that belong to one input channel."""
        return self.kernel * self.kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualSum:
    """A sum of two feature maps of a unit.

    Attributes:
        height: Rows of the map.
        width: Columns of the map.
        activation_module: The activation function behind the sum; None where there is none.
    """

    height: int
    width: int
    activation_module: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CutLayer:
    """A layer as a policy leaves it.

    Attributes:
        layer: The dense layer.
        out_channels: Output channels that stay.
        in_channels: Input channels that stay; 1 for a depthwise layer and 0 where its whole input is gone, so that
            only the bias is left.
        format: Name of its number format.
        input_format: Format of the unit that it consumes; None for the model's input.
    """

    layer: ChannelLayer
    out_channels: int
    in_channels: int
    format: str
    input_format: str | None

    @property
    def in_columns(self) -> int:
        """Columns of the flattened weight."""
        return self.in_channels * self.layer.columns_per_channel


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelUnit(Unit):
    """Channels that residual sums and depthwise convolutions tie together.

    A convolution is cut on rows by the unit that it produces and on columns by the one that it consumes, so its shape
    depends on two choices. Each layer is listed with one unit: that of its rows, or of its columns where no unit has
    its rows. The fields of a unit with one projection have no meaning here.

    Attributes:
        channel_layers: Layers listed here.
        sums: Residual sums of the unit's feature maps.
    """

    kind: UnitKind = UnitKind.CONVOLUTION
    channel_layers: tuple[ChannelLayer, ...] = ()
    sums: tuple[ResidualSum, ...] = ()
    producers: tuple[Producer, ...] = ()
    consumer: str = ""
    columns_per_group: int = 1
    in_features: int = 0
    out_features: int = 0

    @property
    def layer_type(self) -> LayerType:
        """What kind of kernels run the unit's layers."""
        return LayerType.CONVOLUTION

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of other units that the layers listed here consume."""
        names = (layer.columns for layer in self.channel_layers)
        return tuple(dict.fromkeys(name for name in names if name is not None and name != self.name))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers listed here."""
        return tuple(layer.layer for layer in self.channel_layers)

    def layer_shapes(self, keep: int) -> Iterator[tuple[str, int, int]]:
        """Yield (layer, rows, columns) of the layers listed here when this and all other units keep the same ratio.

        A policy's own shapes come from `cut`; this is the unit's share where one number has to be named.
        """
        for layer in self.channel_layers:
            out_channels = keep if layer.rows == self.name else layer.out_channels
            in_channels = layer.in_channels
            if layer.columns is not None and layer.kind is not ChannelLayerKind.DEPTHWISE:
                in_channels = max(1, round(in_channels * keep / self.groups))
            yield layer.layer, out_channels, in_channels * layer.columns_per_channel

    def cut(self, policy: Policy, base_format: str) -> Iterator[CutLayer]:
        """Yield the layers listed here as a policy leaves them."""
        own = policy[self.name]
        for layer in self.channel_layers:
            columns = None if layer.columns is None else policy[layer.columns]
            yield cut_layer(layer, own if layer.rows == self.name else None, columns, base_format)


def cut_layer(layer: ChannelLayer, rows: Choice | None, columns: Choice | None, base_format: str) -> CutLayer:
    """A layer under the choices of the units of its rows and of its columns.

    Args:
        layer: The layer.
        rows: Choice of the unit that it produces; None where there is none.
        columns: Choice of the unit that it consumes; None where there is none.
        base_format: Format of a layer that produces no unit.
    """
    depthwise = layer.kind is ChannelLayerKind.DEPTHWISE
    return CutLayer(
        layer=layer,
        out_channels=layer.out_channels if rows is None else rows.keep,
        in_channels=layer.in_channels if columns is None or depthwise else columns.keep,
        format=base_format if rows is None else rows.format,
        input_format=None if columns is None else columns.format,
    )


def reachable_cuts(
    layer: ChannelLayer, choices: Mapping[str, Sequence[Choice]], base_format: str
) -> Iterator[CutLayer]:
    """The layer under all choices of the units of its rows and columns.

    Args:
        layer: The layer.
        choices: Choices by unit name.
        base_format: Format of a layer that produces no unit.
    """
    rows: Sequence[Choice | None] = [None] if layer.rows is None else choices[layer.rows]
    columns: Sequence[Choice | None] = [None] if layer.columns is None else choices[layer.columns]
    pairs = zip(rows, columns, strict=True) if layer.rows == layer.columns else itertools.product(rows, columns)
    return (cut_layer(layer, *pair, base_format) for pair in pairs)
