"""DistilBERT: BERT's layers under other names, with the output projection inside the attention module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES, Architecture
from search_spaces.architectures.blocks import (
    attention_unit,
    embedding_part,
    embedding_unit,
    feed_forward_unit,
    head_parts,
    layer_names,
    norm_part,
)
from search_spaces.units import Branch, FixedPart, Unit

if TYPE_CHECKING:
    from torch import nn


class DistilBert(Architecture):
    """Units of DistilBERT with a classification head or without."""

    normalizes_first = False
    reads_shapes_only = True

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """The table of words; attention by heads and feed-forward by channels, for each layer."""
        return tuple(_units(model))

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Positions, normalisations and classifier."""
        config: Any = model.config
        return (
            embedding_part(model, "distilbert.embeddings.position_embeddings"),
            norm_part(config.dim, 1 + 2 * config.n_layers),
            *head_parts(model, ("pre_classifier", "classifier")),
        )

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Embeddings and layers."""
        return (("distilbert.embeddings", *layer_names(model, "distilbert.transformer.layer")),)

    def max_tokens(self, config: Any) -> int | None:
        """Rows of the position table."""
        return int(config.max_position_embeddings)


def _units(model: nn.Module) -> Iterator[Unit]:
    config: Any = model.config
    yield embedding_unit(model, "embeddings", "distilbert.embeddings.word_embeddings")
    for index in range(config.n_layers):
        layer = f"distilbert.transformer.layer.{index}"
        yield attention_unit(
            model,
            f"layer.{index}.attention",
            producers=[f"{layer}.attention.{name}" for name in ("q_lin", "k_lin", "v_lin")],
            consumer=f"{layer}.attention.out_lin",
            groups=config.n_heads,
            branch=Branch(module=f"{layer}.attention", returns_tuple=True),
        )
        yield feed_forward_unit(
            model,
            f"layer.{index}.feed_forward",
            producers=[f"{layer}.ffn.lin1"],
            consumer=f"{layer}.ffn.lin2",
            activation=config.activation,
            branch=Branch(module=f"{layer}.ffn"),
        )


ARCHITECTURES.register("distilbert")(DistilBert())
