"""BERT: post-normalised encoder layers of self-attention and a feed-forward block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES
from search_spaces.units import Branch, FixedPart, PartKind, Producer, Unit, UnitKind

if TYPE_CHECKING:
    from torch import nn


class Bert:
    """Units of BERT with a classification head."""

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """Attention by heads and feed-forward by channels, for each layer."""
        config: Any = model.config
        return tuple(
            unit
            for index in range(config.num_hidden_layers)
            for unit in (_attention(config, index), _feed_forward(config, index))
        )

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Embeddings, normalisations, pooler and classifier."""
        config: Any = model.config
        hidden = config.hidden_size
        return (
            FixedPart(kind=PartKind.EMBEDDING, width=(config.vocab_size, hidden)),
            FixedPart(kind=PartKind.EMBEDDING, width=(config.max_position_embeddings, hidden)),
            FixedPart(kind=PartKind.LAYER_NORM, width=(hidden,), count=1 + 2 * config.num_hidden_layers),
            FixedPart(kind=PartKind.LINEAR, width=(hidden, hidden), per_token=False),
            FixedPart(kind=PartKind.LINEAR, width=(hidden, config.num_labels), per_token=False),
        )

    def tokens(self, config: Any) -> int | None:
        """Text decides."""
        return None

    def max_tokens(self, config: Any) -> int | None:
        """Rows of the position table."""
        return int(config.max_position_embeddings)


def _attention(config: Any, index: int) -> Unit:
    head_dim = config.hidden_size // config.num_attention_heads
    prefix = f"bert.encoder.layer.{index}.attention"
    return Unit(
        name=f"layer.{index}.attention",
        kind=UnitKind.ATTENTION,
        groups=config.num_attention_heads,
        producers=tuple(
            Producer(layer=f"{prefix}.self.{name}", rows_per_group=head_dim) for name in ("query", "key", "value")
        ),
        consumer=f"{prefix}.output.dense",
        columns_per_group=head_dim,
        in_features=config.hidden_size,
        out_features=config.hidden_size,
        branch=Branch(module=f"{prefix}.self", returns_tuple=True),
    )


def _feed_forward(config: Any, index: int) -> Unit:
    prefix = f"bert.encoder.layer.{index}"
    return Unit(
        name=f"layer.{index}.feed_forward",
        kind=UnitKind.FEED_FORWARD,
        groups=config.intermediate_size,
        producers=(Producer(layer=f"{prefix}.intermediate.dense", rows_per_group=1),),
        consumer=f"{prefix}.output.dense",
        columns_per_group=1,
        in_features=config.hidden_size,
        out_features=config.hidden_size,
        branch=Branch(module=f"{prefix}.intermediate"),
        activation=str(config.hidden_act),
    )


ARCHITECTURES.register("bert")(Bert())
