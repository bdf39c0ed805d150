"""What architecture modules build their declarations from: units and fixed parts, with shapes read from the model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import UnsupportedModelError
from search_spaces.units import Branch, FixedPart, PartKind, Producer, Rotation, Unit, UnitKind

if TYPE_CHECKING:
    from torch import nn


def attention_unit(
    model: nn.Module,
    name: str,
    *,
    producers: Sequence[str],
    consumer: str,
    groups: int,
    branch: Branch,
    context: Collection[str] = (),
    selection: str | None = None,
    rotation: Rotation | None = None,
    normalizes_heads: bool = False,
    causal: bool = False,
) -> Unit:
    """Declare an attention block by its heads, or by its key-value heads with the query heads that share them.

    Args:
        model: The model; the meta device will do.
        name: Name of the unit.
        producers: Modules that make queries, keys and values.
        consumer: The output projection.
        groups: Key-value heads; every producer has a multiple of them.
        branch: What is replaced at keep 0.
        context: Producers that read a second input (the encoder's output in cross-attention).
        selection: Module that cuts a side input to the heads that stay.
        rotation: How positions are rotated into queries and keys.
        normalizes_heads: Whether each head of queries and keys is normalised.
        causal: Whether tokens attend to themselves and earlier ones alone.

    Raises:
        AttributeError: A module is missing or is no linear layer.
        UnsupportedModelError: A width does not divide into the groups.
    """
    project: Any = model.get_submodule(consumer)
    return Unit(
        name=name,
        kind=UnitKind.ATTENTION,
        groups=groups,
        producers=tuple(_producer(model, layer, groups, input_index=int(layer in context)) for layer in producers),
        consumer=consumer,
        columns_per_group=_share(project.in_features, groups, consumer),
        in_features=_in_features(model, producers),
        out_features=project.out_features,
        branch=branch,
        consumer_bias=project.bias is not None,
        inner_parameters=_inner_parameters(model, branch, (*producers, consumer)),
        selection=selection,
        rotation=rotation,
        normalizes_heads=normalizes_heads,
        causal=causal,
    )


def feed_forward_unit(
    model: nn.Module,
    name: str,
    *,
    producers: Sequence[str],
    consumer: str,
    activation: object,
    branch: Branch,
    blocks: int = 1,
) -> Unit:
    """Declare a feed-forward block by its hidden channels.

    Args:
        model: The model; the meta device will do.
        name: Name of the unit.
        producers: Modules that make the channels: one, or gate and up.
        consumer: The output projection.
        activation: Name of the activation function.
        branch: What is replaced at keep 0.
        blocks: Row blocks of each producer; 2 where gate and up are fused.

    Raises:
        AttributeError: A module is missing or is no linear layer.
        UnsupportedModelError: The producers' widths are not the consumer's.
    """
    project: Any = model.get_submodule(consumer)
    groups = project.in_features
    return Unit(
        name=name,
        kind=UnitKind.FEED_FORWARD,
        groups=groups,
        producers=tuple(_producer(model, layer, groups, blocks=blocks) for layer in producers),
        consumer=consumer,
        columns_per_group=1,
        in_features=_in_features(model, producers),
        out_features=project.out_features,
        branch=branch,
        activation=str(activation),
        consumer_bias=project.bias is not None,
        inner_parameters=_inner_parameters(model, branch, (*producers, consumer)),
    )


def embedding_unit(model: nn.Module, name: str, layer: str) -> Unit:
    """Declare an embedding table whose rows can have a format of their own. No other layer may share its weight.

    Args:
        model: The model; the meta device will do.
        name: Name of the unit.
        layer: The table's module.

    Raises:
        AttributeError: The module is missing or is no embedding.
    """
    table: Any = model.get_submodule(layer)
    return Unit(
        name=name,
        kind=UnitKind.EMBEDDING,
        groups=1,
        producers=(),
        consumer=layer,
        columns_per_group=table.embedding_dim,
        in_features=table.embedding_dim,
        out_features=table.num_embeddings,
        consumer_bias=False,
    )


def embedding_part(model: nn.Module, name: str) -> FixedPart:
    """Rows of a table, looked up for each token."""
    table: Any = model.get_submodule(name)
    return FixedPart(kind=PartKind.EMBEDDING, width=(table.num_embeddings, table.embedding_dim))


def layer_names(model: nn.Module, container: str) -> tuple[str, ...]:
    """Names of the modules of a list of them, in their order."""
    return tuple(f"{container}.{name}" for name, _ in model.get_submodule(container).named_children())


def linear_part(model: nn.Module, name: str, *, per_token: bool = False) -> FixedPart:
    """A linear layer in the base format: a pooler, or a head."""
    linear: Any = model.get_submodule(name)
    return FixedPart(kind=PartKind.LINEAR, width=(linear.in_features, linear.out_features), per_token=per_token)


def head_parts(model: nn.Module, names: Sequence[str]) -> tuple[FixedPart, ...]:
    """Linear layers behind the encoder, which run once an example; none where the model has no classifier (embeddings).

    Raises:
        AttributeError: It has one, and not all of the layers.
    """
    if not hasattr(model, "classifier"):
        return ()
    return tuple(linear_part(model, name) for name in names)


def norm_part(features: int, count: int, *, kind: PartKind = PartKind.LAYER_NORM) -> FixedPart:
    """Normalisations over the features: `LAYER_NORM` or `RMS_NORM`."""
    return FixedPart(kind=kind, width=(features,), count=count)


def positions_part(columns: int) -> FixedPart:
    """The causal mask, and cosines and sines for the columns of a head that are rotated; attention alone reads them."""
    return FixedPart(kind=PartKind.POSITIONS, width=(columns,), only_for=UnitKind.ATTENTION)


def _producer(model: nn.Module, layer: str, groups: int, *, blocks: int = 1, input_index: int = 0) -> Producer:
    linear: Any = model.get_submodule(layer)
    return Producer(
        layer=layer,
        rows_per_group=_share(linear.out_features, groups * blocks, layer),
        blocks=blocks,
        bias=linear.bias is not None,
        input_index=input_index,
    )


def _inner_parameters(model: nn.Module, branch: Branch, layers: Sequence[str]) -> int:
    inside = {id(p) for layer in layers for p in model.get_submodule(layer).parameters()}
    return sum(p.numel() for p in model.get_submodule(branch.module).parameters() if id(p) not in inside)


def _share(features: int, groups: int, layer: str) -> int:
    if features % groups:
        raise UnsupportedModelError(
            f"the features of {layer} divide into the groups of its unit; got {features} features for {groups} groups"
        )
    return features // groups


def _in_features(model: nn.Module, layers: Sequence[str]) -> int:
    linears: list[Any] = [model.get_submodule(layer) for layer in layers]
    widths = {linear.in_features for linear in linears}
    if len(widths) != 1:
        raise UnsupportedModelError(
            f"layers of one unit have inputs of one width; got {sorted(widths)} for {', '.join(layers)}"
        )
    return int(widths.pop())
