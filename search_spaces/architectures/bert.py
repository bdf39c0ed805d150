"""BERT and RoBERTa: post-normalised encoder layers of self-attention and a feed-forward block."""

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


class Bert(Architecture):
    """Units of a BERT-like encoder, with a classification head or without.

    Args:
        root: Attribute of the model that holds embeddings and encoder.
        head: Linear layers of a classifier after the encoder, which run once an example.
        numbers_after_padding: Whether positions count from the number after the padding token's on (RoBERTa).
    """

    normalizes_first = False
    reads_shapes_only = True

    def __init__(self, root: str, head: tuple[str, ...], *, numbers_after_padding: bool = False) -> None:
        self._root, self._head, self._numbers_after_padding = root, head, numbers_after_padding

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """The table of words; attention by heads and feed-forward by channels, for each layer."""
        return tuple(self._units(model))

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Positions, normalisations and head."""
        config: Any = model.config
        return (
            embedding_part(model, f"{self._root}.embeddings.position_embeddings"),
            norm_part(config.hidden_size, 1 + 2 * config.num_hidden_layers),
            *head_parts(model, self._head),
        )

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Embeddings and layers."""
        return ((f"{self._root}.embeddings", *layer_names(model, f"{self._root}.encoder.layer")),)

    def max_tokens(self, config: Any) -> int | None:
        """Rows of the position table that a token can have."""
        used = config.pad_token_id + 1 if self._numbers_after_padding else 0
        return int(config.max_position_embeddings) - used

    def _units(self, model: nn.Module) -> Iterator[Unit]:
        config: Any = model.config
        yield embedding_unit(model, "embeddings", f"{self._root}.embeddings.word_embeddings")
        for index in range(config.num_hidden_layers):
            layer = f"{self._root}.encoder.layer.{index}"
            attention = f"{layer}.attention.self"
            yield attention_unit(
                model,
                f"layer.{index}.attention",
                producers=[f"{attention}.{name}" for name in ("query", "key", "value")],
                consumer=f"{layer}.attention.output.dense",
                groups=config.num_attention_heads,
                branch=Branch(module=attention, returns_tuple=True),
            )
            yield feed_forward_unit(
                model,
                f"layer.{index}.feed_forward",
                producers=[f"{layer}.intermediate.dense"],
                consumer=f"{layer}.output.dense",
                activation=config.hidden_act,
                branch=Branch(module=f"{layer}.intermediate"),
            )


ARCHITECTURES.register("bert")(Bert("bert", ("bert.pooler.dense", "classifier")))
ARCHITECTURES.register("roberta", "xlm-roberta", "camembert")(
    Bert("roberta", ("classifier.dense", "classifier.out_proj"), numbers_after_padding=True)
)
