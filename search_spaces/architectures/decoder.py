"""Decoders: pre-normalised layers of grouped-query attention and a gated feed-forward block.

GLM, GLM-4, Llama, Mistral, Qwen2, Qwen3, Gemma and Gemma 2 differ in biases, norms and names, not in how they are cut.
Rotary embeddings and the norms of Qwen3's queries and keys act on each head alone, so that they outlive any cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import ARCHITECTURES, Architecture
from search_spaces.architectures.blocks import (
    attention_unit,
    embedding_part,
    feed_forward_unit,
    layer_names,
    linear_part,
    norm_part,
    positions_part,
)
from search_spaces.units import Branch, FixedPart, PartKind, Rotation, Unit

if TYPE_CHECKING:
    from torch import nn

_HEADS = ("lm_head", "score")


class Decoder(Architecture):
    """Units of a decoder with a language-model head or a classification head.

    Args:
        feed_forward_norm: Name of the normalisation before a layer's feed-forward block.
        normalizes_outputs: Whether the outputs of both branches are normalised as well.
        activation: Field of the configuration that names the activation function.
        fused: Whether one layer makes gate and up.
        rotates_neighbours: Whether positions are rotated into neighbouring columns of a head.
        rotated_share: Share of a head's columns that is rotated, where the configuration says nothing.
    """

    reads_shapes_only = True

    def __init__(
        self,
        *,
        feed_forward_norm: str = "post_attention_layernorm",
        normalizes_outputs: bool = False,
        activation: str = "hidden_act",
        fused: bool = False,
        rotates_neighbours: bool = False,
        rotated_share: float = 1.0,
    ) -> None:
        self._feed_forward_norm, self._normalizes_outputs = feed_forward_norm, normalizes_outputs
        self._activation, self._fused = activation, fused
        self._rotates_neighbours, self._rotated_share = rotates_neighbours, rotated_share

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """Attention by key-value heads with their query heads, and feed-forward by channels, for each layer."""
        return tuple(self._units(model))

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Embedding, positions, normalisations of outputs and the last one, and head."""
        config: Any = model.config
        norms = 1 + 2 * config.num_hidden_layers * self._normalizes_outputs
        return (
            embedding_part(model, "model.embed_tokens"),
            positions_part(self._rotation(model).columns),
            norm_part(config.hidden_size, norms, kind=PartKind.RMS_NORM),
            *(linear_part(model, name, per_token=True) for name in _HEADS if hasattr(model, name)),
        )

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """The layers; keys and values of earlier texts, which they could hand on, are not kept."""
        return (layer_names(model, "model.layers"),)

    def max_tokens(self, config: Any) -> int | None:
        """Positions that the model was trained for."""
        return int(config.max_position_embeddings)

    def _rotation(self, model: nn.Module) -> Rotation:
        config: Any = model.config
        keys: Any = model.get_submodule("model.layers.0.self_attn.k_proj")
        head_dim = keys.out_features // config.num_key_value_heads
        # Files by transformers 4 have the share beside the other fields.
        beside = getattr(config, "partial_rotary_factor", self._rotated_share)
        share = (getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", beside)
        return Rotation(columns=int(head_dim * share), neighbours=self._rotates_neighbours)

    def _units(self, model: nn.Module) -> Iterator[Unit]:
        config: Any = model.config
        rotation = self._rotation(model)
        for index in range(config.num_hidden_layers):
            layer = f"model.layers.{index}"
            yield attention_unit(
                model,
                f"layer.{index}.attention",
                producers=[f"{layer}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")],
                consumer=f"{layer}.self_attn.o_proj",
                groups=config.num_key_value_heads,
                branch=Branch(
                    module=f"{layer}.self_attn",
                    returns_tuple=True,
                    norm=f"{layer}.input_layernorm",
                    norm_kind=PartKind.RMS_NORM,
                ),
                rotation=rotation,
                causal=True,
                normalizes_heads=hasattr(model.get_submodule(f"{layer}.self_attn"), "q_norm"),
            )
            names = ("gate_up_proj",) if self._fused else ("gate_proj", "up_proj")
            yield feed_forward_unit(
                model,
                f"layer.{index}.feed_forward",
                producers=[f"{layer}.mlp.{name}" for name in names],
                consumer=f"{layer}.mlp.down_proj",
                activation=getattr(config, self._activation),
                branch=Branch(
                    module=f"{layer}.mlp",
                    norm=f"{layer}.{self._feed_forward_norm}",
                    norm_kind=PartKind.RMS_NORM,
                ),
                blocks=2 if self._fused else 1,
            )


ARCHITECTURES.register("llama", "mistral", "qwen2", "qwen3", "gemma")(Decoder())
ARCHITECTURES.register("gemma2")(
    Decoder(feed_forward_norm="pre_feedforward_layernorm", normalizes_outputs=True, activation="hidden_activation")
)
ARCHITECTURES.register("glm")(Decoder(fused=True, rotates_neighbours=True, rotated_share=0.5))
ARCHITECTURES.register("glm4")(Decoder(normalizes_outputs=True, fused=True, rotates_neighbours=True, rotated_share=0.5))
