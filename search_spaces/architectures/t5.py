"""T5: an encoder and a decoder of pre-normalised layers without biases, and a position bias that layers share."""

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
)
from search_spaces.units import Branch, FixedPart, PartKind, Unit

if TYPE_CHECKING:
    from torch import nn


class T5(Architecture):
    """Units of an encoder-decoder with a language-model head."""

    def prepare(self, model: nn.Module) -> None:
        """Let every layer select its heads' columns of the shared position bias; parameters stay the same ones."""
        from search_spaces.architectures.shared_bias import SharedBiasAttention

        for stack, cross in (("encoder", False), ("decoder", True)):
            blocks: Any = model.get_submodule(f"{stack}.block")
            for block in blocks:
                own = block.layer[0]
                if isinstance(own.SelfAttention, SharedBiasAttention):
                    return
                own.SelfAttention = SharedBiasAttention(own.SelfAttention, takes_bias=True)
                if cross:
                    other = block.layer[1]
                    other.EncDecAttention = SharedBiasAttention(other.EncDecAttention, takes_bias=False)

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """Attention by heads and feed-forward by channels, for each layer of both stacks."""
        return tuple(self._units(model))

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Embeddings of both stacks, their last normalisations and head."""
        config: Any = model.config
        return (
            embedding_part(model, "shared"),
            embedding_part(model, "shared"),
            norm_part(config.d_model, 2, kind=PartKind.RMS_NORM),
            linear_part(model, "lm_head", per_token=True),
        )

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Layers of encoder and decoder; what they return holds the position bias that they share."""
        return layer_names(model, "encoder.block"), layer_names(model, "decoder.block")

    def _units(self, model: nn.Module) -> Iterator[Unit]:
        config: Any = model.config
        for stack, layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
            for index in range(layers):
                name, block = f"{stack}.layer.{index}", f"{stack}.block.{index}.layer"
                yield self._attention(model, f"{name}.attention", f"{block}.0.SelfAttention", cross=False)
                if stack == "decoder":
                    yield self._attention(model, f"{name}.cross_attention", f"{block}.1.EncDecAttention", cross=True)
                last = f"{block}.{2 if stack == 'decoder' else 1}"
                dense = f"{last}.DenseReluDense"
                gated = config.is_gated_act
                yield feed_forward_unit(
                    model,
                    f"{name}.feed_forward",
                    producers=[f"{dense}.{layer}" for layer in (("wi_0", "wi_1") if gated else ("wi",))],
                    consumer=f"{dense}.wo",
                    activation=config.dense_act_fn,
                    branch=Branch(module=dense, norm=f"{last}.layer_norm", norm_kind=PartKind.RMS_NORM),
                )

    def _attention(self, model: nn.Module, name: str, module: str, *, cross: bool) -> Unit:
        config: Any = model.config
        inner, place = f"{module}.attention", module.rpartition(".")[0]
        return attention_unit(
            model,
            name,
            producers=[f"{inner}.{layer}" for layer in ("q", "k", "v")],
            consumer=f"{inner}.o",
            groups=config.num_heads,
            branch=Branch(module=inner, returns_tuple=True, norm=f"{place}.layer_norm", norm_kind=PartKind.RMS_NORM),
            context=(f"{inner}.k", f"{inner}.v") if cross else (),
            selection=None if cross else f"{module}.selection",
            causal=name.startswith("decoder") and not cross,
        )


ARCHITECTURES.register("t5", "mt5")(T5())
