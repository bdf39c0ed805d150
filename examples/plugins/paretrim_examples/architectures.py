"""ELECTRA: BERT's layers, behind word vectors that may be narrower than they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES, Architecture
from search_spaces.architectures.blocks import (
    attention_unit,
    embedding_part,
    embedding_unit,
    feed_forward_unit,
    layer_names,
    linear_part,
    norm_part,
)
from search_spaces.units import Branch, FixedPart, Unit

if TYPE_CHECKING:
    from torch import nn

_PROJECTION = "electra.embeddings_project"


class Electra(Architecture):
    """Units of ELECTRA with a classification head."""

    normalizes_first = False

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """The table of words; attention by heads and feed-forward by channels, for each layer."""
        return tuple(_units(model))

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Positions, the projection of word vectors where there is one, normalisations and head."""
        config: Any = model.config
        projection = [linear_part(model, _PROJECTION, per_token=True)] if _is_projected(config) else []
        return (
            embedding_part(model, "electra.embeddings.position_embeddings"),
            norm_part(config.embedding_size, 1),
            *projection,
            norm_part(config.hidden_size, 2 * config.num_hidden_layers),
            *(linear_part(model, name) for name in ("classifier.dense", "classifier.out_proj")),
        )

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Embeddings and layers."""
        projection = (_PROJECTION,) if _is_projected(model.config) else ()
        return (("electra.embeddings", *projection, *layer_names(model, "electra.encoder.layer")),)

    def max_tokens(self, config: Any) -> int | None:
        """Rows of the position table."""
        return int(config.max_position_embeddings)


def _is_projected(config: Any) -> bool:
    return bool(config.embedding_size != config.hidden_size)


def _units(model: nn.Module) -> Iterator[Unit]:
    config: Any = model.config
    yield embedding_unit(model, "embeddings", "electra.embeddings.word_embeddings")
    for index in range(config.num_hidden_layers):
        layer = f"electra.encoder.layer.{index}"
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


ARCHITECTURES.register("electra")(Electra())
