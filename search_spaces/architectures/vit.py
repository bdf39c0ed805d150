"""ViT and DeiT: pre-normalised encoder layers over image patches."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES, Architecture
from search_spaces.architectures.blocks import attention_unit, feed_forward_unit, layer_names, linear_part, norm_part
from search_spaces.units import Branch, FixedPart, PartKind, Unit

if TYPE_CHECKING:
    from torch import nn

_FILE_RENAMES = MappingProxyType(
    {
        ".encoder.layer.": ".layers.",
        ".attention.attention.query.": ".attention.q_proj.",
        ".attention.attention.key.": ".attention.k_proj.",
        ".attention.attention.value.": ".attention.v_proj.",
        ".attention.output.dense.": ".attention.o_proj.",
        ".intermediate.dense.": ".mlp.fc1.",
        ".output.dense.": ".mlp.fc2.",
    }
)
_HEADS = ("classifier", "cls_classifier", "distillation_classifier")


class Vit(Architecture):
    """Units of a vision transformer with a classification head, or with two that are averaged.

    Args:
        root: Attribute of the model that holds the layers.
        extra_tokens: Tokens beside the patches: class, and for DeiT distillation.
    """

    reads_shapes_only = True
    file_renames = _FILE_RENAMES

    def __init__(self, root: str, *, extra_tokens: int) -> None:
        self._root, self._extra_tokens = root, extra_tokens

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """Attention by heads and feed-forward by channels, for each layer."""
        return tuple(self._units(model))

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Patch embedding, last normalisation and classifier."""
        config: Any = model.config
        hidden = config.hidden_size
        patches = (config.num_channels, hidden, config.patch_size, config.image_size)
        return (
            FixedPart(kind=PartKind.CONVOLUTION, width=patches, per_token=False),
            norm_part(hidden, 1),
            *(linear_part(model, name) for name in _HEADS if hasattr(model, name)),
        )

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Embeddings and layers."""
        return ((f"{self._root}.embeddings", *layer_names(model, f"{self._root}.layers")),)

    def tokens(self, config: Any) -> int | None:
        """One token a patch, and the extra ones."""
        return int((config.image_size // config.patch_size) ** 2 + self._extra_tokens)

    def max_tokens(self, config: Any) -> int | None:
        """The image fixes the number of tokens."""
        return self.tokens(config)

    def _units(self, model: nn.Module) -> Iterator[Unit]:
        config: Any = model.config
        for index in range(config.num_hidden_layers):
            layer = f"{self._root}.layers.{index}"
            yield attention_unit(
                model,
                f"layer.{index}.attention",
                producers=[f"{layer}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")],
                consumer=f"{layer}.attention.o_proj",
                groups=config.num_attention_heads,
                branch=Branch(module=f"{layer}.attention", returns_tuple=True, norm=f"{layer}.layernorm_before"),
            )
            yield feed_forward_unit(
                model,
                f"layer.{index}.feed_forward",
                producers=[f"{layer}.mlp.fc1"],
                consumer=f"{layer}.mlp.fc2",
                activation=config.hidden_act,
                branch=Branch(module=f"{layer}.mlp", norm=f"{layer}.layernorm_after"),
            )


ARCHITECTURES.register("vit")(Vit("vit", extra_tokens=1))
ARCHITECTURES.register("deit")(Vit("deit", extra_tokens=2))
