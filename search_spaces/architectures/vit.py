"""ViT: pre-normalised encoder layers over image patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES
from search_spaces.units import Branch, FixedPart, PartKind, Producer, Unit, UnitKind

if TYPE_CHECKING:
    from torch import nn


class Vit:
    """Units of a vision transformer with a classification head."""

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """Attention by heads and feed-forward by channels, for each layer."""
        config: Any = model.config
        return tuple(
            unit
            for index in range(config.num_hidden_layers)
            for unit in (_attention(config, index), _feed_forward(config, index))
        )

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Patch embedding, normalisations and classifier."""
        config: Any = model.config
        hidden = config.hidden_size
        patches = (config.num_channels, hidden, config.patch_size, config.image_size)
        return (
            FixedPart(kind=PartKind.CONVOLUTION, width=patches, per_token=False),
            FixedPart(kind=PartKind.LAYER_NORM, width=(hidden,), count=1 + 2 * config.num_hidden_layers),
            FixedPart(kind=PartKind.LINEAR, width=(hidden, config.num_labels), per_token=False),
        )

    def tokens(self, config: Any) -> int | None:
        """One token a patch, and the class token."""
        return int((config.image_size // config.patch_size) ** 2 + 1)

    def max_tokens(self, config: Any) -> int | None:
        """The image fixes the number of tokens."""
        return self.tokens(config)


def _attention(config: Any, index: int) -> Unit:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    prefix = f"vit.layers.{index}.attention"
    return Unit(
        name=f"layer.{index}.attention",
        kind=UnitKind.ATTENTION,
        groups=config.num_attention_heads,
        producers=tuple(
            Producer(layer=f"{prefix}.{name}", rows_per_group=head_dim) for name in ("q_proj", "k_proj", "v_proj")
        ),
        consumer=f"{prefix}.o_proj",
        columns_per_group=head_dim,
        in_features=config.hidden_size,
        out_features=config.hidden_size,
        branch=Branch(module=prefix, returns_tuple=True),
    )


def _feed_forward(config: Any, index: int) -> Unit:
    prefix = f"vit.layers.{index}.mlp"
    return Unit(
        name=f"layer.{index}.feed_forward",
        kind=UnitKind.FEED_FORWARD,
        groups=config.intermediate_size,
        producers=(Producer(layer=f"{prefix}.fc1", rows_per_group=1),),
        consumer=f"{prefix}.fc2",
        columns_per_group=1,
        in_features=config.hidden_size,
        out_features=config.hidden_size,
        branch=Branch(module=prefix),
        activation=str(config.hidden_act),
    )


ARCHITECTURES.register("vit")(Vit())
