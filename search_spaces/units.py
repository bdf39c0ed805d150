"""What a model consists of, as far as compression and cost are concerned: units and fixed parts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from search_spaces.formats import LayerType


class UnitKind(StrEnum):
    """What a unit's groups are."""

    ATTENTION = "attention"
    """Groups are heads, or key-value groups with their query heads."""
    FEED_FORWARD = "feed_forward"
    """Groups are hidden channels."""
    CONVOLUTION = "convolution"
    """Groups are channels of feature maps, tied through residual sums (`search_spaces.channels`)."""
    EMBEDDING = "embedding"
    """A table of rows, one group that always stays: only its format is chosen. The consumer is the table, its rows are
    the output features and its columns the input features."""


class PartKind(StrEnum):
    """Kinds of work outside units, whose cost is the same for every policy that needs it."""

    LINEAR = "linear"
    """A linear layer in the base format; width is (in_features, out_features)."""
    LAYER_NORM = "layer_norm"
    """Layer normalisation together with the residual addition before it where there is one; width is (features,). Those
    that only one branch reads are part of its unit."""
    RMS_NORM = "rms_norm"
    """The same by the root mean square alone."""
    EMBEDDING = "embedding"
    """Rows looked up in a table; width is (rows, features)."""
    CONVOLUTION = "convolution"
    """A patch embedding; width is (in_channels, out_channels, kernel, image_size)."""
    POSITIONS = "positions"
    """Causal mask, and cosines and sines of positions; width is (columns,), those of a head that are rotated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """A linear layer that makes a unit's groups: pruning removes rows of its weight.

    Attributes:
        layer: Module name in the model.
        rows_per_group: Output rows that belong to one group (1 for a channel, head_dim for a head).
        blocks: Blocks of rows that each hold all groups; 2 where one layer makes gate and up.
        bias: Whether the layer has a bias.
        input_index: Which input of the unit it reads; those of one index share it. 1 is the encoder's output in
            cross-attention.
    """

    layer: str
    rows_per_group: int
    blocks: int = 1
    bias: bool = True
    input_index: int = 0

    def rows(self, kept: Sequence[int], groups: int) -> list[int]:
        """Output rows of the groups that stay, ascending where `kept` is; `groups` counts the dense unit's."""
        size = self.rows_per_group
        starts = (size * (block * groups + group) for block in range(self.blocks) for group in kept)
        return [start + row for start in starts for row in range(size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """The module that runs a unit inside a residual connection, replaced when nothing of the unit is kept.

    Attributes:
        module: Module name. Where the consumer lies inside it, the whole module becomes the constant that the branch
            adds; elsewhere it is bypassed and the consumer becomes the constant.
        returns_tuple: Whether the module returns (output, attention weights) in place of the output.
        norm: Normalisation of the branch's input, which nothing else reads, so that it is gone with the branch; None
            where the residual stream itself is normalised, or nothing is.
        norm_kind: What that computes: `LAYER_NORM` or `RMS_NORM`.
    """

    module: str
    returns_tuple: bool = False
    norm: str | None = None
    norm_kind: PartKind = field(default=PartKind.LAYER_NORM, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Positions rotated into queries and keys (RoFormer, arXiv:2104.09864).

    Attributes:
        columns: Columns of a head that are rotated, from the first on; even.
        neighbours: Whether columns 2i and 2i+1 make a pair, and not i and i + `columns` / 2.
    """

    columns: int
    neighbours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The smallest part of a model that is pruned and quantized as one.

    Attributes:
        name: Short name, unique in the model ("layer.0.attention").
        kind: What the groups are.
        groups: How many groups the dense unit has.
        producers: Layers whose rows belong to groups; all take the same input and share one format.
        consumer: The output projection, whose input columns belong to groups.
        columns_per_group: Input columns of the consumer that belong to one group.
        in_features: Width of the producers' input.
        out_features: Width of the consumer's output.
        branch: What is replaced at keep 0; None where the unit is not residual, so that keep 0 is not offered.
        activation: Name of the activation function between producers and consumer; None for attention.
        consumer_bias: Whether the consumer has a bias.
        inner_parameters: Parameters of the branch beside its layers (the norms of Qwen3's queries and keys): the same
            for every keep, and gone with the branch.
        selection: Module of class `GroupSelection` that cuts a side input to the groups that stay (T5's relative
            position bias, which all layers share and which has a column a head); None where there is none.
        rotation: How positions are rotated into queries and keys; None where they are not.
        normalizes_heads: Whether each head of queries and keys is normalised by its root mean square.
        causal: Whether tokens attend to themselves and earlier ones alone.
    """

    name: str
    kind: UnitKind
    groups: int
    producers: tuple[Producer, ...]
    consumer: str
    columns_per_group: int
    in_features: int
    out_features: int
    branch: Branch | None = None
    activation: str | None = None
    consumer_bias: bool = True
    inner_parameters: int = 0
    selection: str | None = None
    # No part of the repr, by which tables that were measured for a model are found again: fixed parts tell such models.
    rotation: Rotation | None = field(default=None, repr=False)
    normalizes_heads: bool = field(default=False, repr=False)
    causal: bool = field(default=False, repr=False)

    @property
    def layer_type(self) -> LayerType:
        """What kind of kernels run the unit's layers."""
        return LayerType.EMBEDDING if self.kind is UnitKind.EMBEDDING else LayerType.LINEAR

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of other units whose choices shape this unit's layers too."""
        return ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all linear layers of the unit, producers first."""
        return (*(p.layer for p in self.producers), self.consumer)

    def layer_shapes(self, keep: int) -> Iterator[tuple[str, int, int]]:
        """Yield (layer, out_features, in_features) of every linear layer when `keep` groups stay."""
        for producer in self.producers:
            yield producer.layer, keep * producer.rows_per_group * producer.blocks, self.in_features
        yield self.consumer, self.out_features, keep * self.columns_per_group

    def has_bias(self, layer: str) -> bool:
        """Whether one of the unit's layers has a bias."""
        return self.consumer_bias if layer == self.consumer else any(p.bias for p in self.producers if p.layer == layer)

    def input_layer(self, layer: str) -> str:
        """First of the unit's layers that reads the same input as `layer`, which may be `layer` itself."""
        index = {producer.layer: producer.input_index for producer in self.producers}
        return next((name for name, i in index.items() if layer in index and i == index[layer]), layer)

    @property
    def is_gated(self) -> bool:
        """Whether the activation of one half of the producers' rows multiplies the other half."""
        return self.kind is UnitKind.FEED_FORWARD and sum(producer.blocks for producer in self.producers) > 1

    def counts(self, keep_ratios: tuple[float, ...], *, channel_multiple: int) -> tuple[int, ...]:
        """Group counts of keep ratios, descending and without repeats.

        Args:
            keep_ratios: Fractions of the groups that stay, 0 to 1.
            channel_multiple: Widths on the target are multiples of this, as far as the unit is that wide.

        Returns:
            Counts. A ratio of 0 gives 0 where the unit is residual and is left out elsewhere; a ratio of 1 gives
            all groups whatever the multiple; any other gives at least one multiple. An embedding table is always whole.
        """
        if self.kind is UnitKind.EMBEDDING:
            return (self.groups,)
        width = self.columns_per_group
        step = channel_multiple // math.gcd(channel_multiple, width)
        found = set()
        for ratio in keep_ratios:
            if ratio == 0:
                if self.branch is not None:
                    found.add(0)
            elif ratio == 1 or step >= self.groups:
                found.add(self.groups if ratio == 1 else max(1, round(ratio * self.groups)))
            else:
                found.add(min(self.groups, step * max(1, round(ratio * self.groups / step))))
        return tuple(sorted(found, reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPart:
    """Work that every policy does alike, or every policy that keeps a unit which reads it.

    Attributes:
        kind: What is computed.
        width: Sizes, as the kind says.
        per_token: Whether it runs for each token; else once for each example.
        count: How often it occurs in the model.
        only_for: Kind of the units that alone read it, so that it is gone with the last of them; None where more do.
            Plain torch computes it all the same.
    """

    kind: PartKind
    width: tuple[int, ...]
    per_token: bool = True
    count: int = 1
    only_for: UnitKind | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStructure:
    """Units and fixed parts of one model.

    Attributes:
        architecture: Name under which the architecture is registered.
        units: All units, in the order in which data flows.
        fixed: Everything else that takes time.
        fixed_bytes: Bytes of all parameters outside units in the base format.
        base_format: Format of what is not quantized ("fp32").
        tokens: Tokens of one example where the model fixes them (a vision transformer); None where the data does.
        max_tokens: Longest sequence that the model takes; None where it is not bounded.
        stacks: Blocks of the model: modules that run one after the other, each once, and take of those before them
            only what the last one returned. One stack follows the other (encoder, decoder) and takes of it what its
            last block returned. Layers of units outside all blocks run behind them, where other layers of the unit
            are inside. Empty where the model is not built so.
        normalizes_first: Whether a branch normalises its input, so that the residual stream lives beside that.
    """

    architecture: str
    units: tuple[Unit, ...]
    fixed: tuple[FixedPart, ...]
    fixed_bytes: int
    base_format: str = "fp32"
    tokens: int | None = None
    max_tokens: int | None = None
    stacks: tuple[tuple[str, ...], ...] = ()
    # No part of the repr, by which tables that were measured for a model are found again: no time depends on it.
    normalizes_first: bool = field(default=True, repr=False)

    def stack_of(self, unit: Unit) -> int | None:
        """Return the number of the stack that a unit's layers lie in; None where they lie in none."""
        layer = f"{unit.layers[0]}."
        for number, blocks in enumerate(self.stacks):
            if any(layer.startswith(f"{block}.") for block in blocks):
                return number
        return None

    def unit(self, name: str) -> Unit:
        """Return the unit of that name.

        Raises:
            KeyError: No such unit.
        """
        for unit in self.units:
            if unit.name == name:
                return unit
        raise KeyError(f"no unit {name!r}; the model has {[u.name for u in self.units]}")
