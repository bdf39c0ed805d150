"""T5's attention, rewired so that each layer takes its own heads' columns of the bias that all layers share.

T5 computes a bias for each head from relative positions in the first layer and hands it on to the others, which add
it as it is: all layers would have to keep the same heads. Here the whole bias is handed on, and every layer selects.

Shape letters: B batch, H heads, Q queries, K keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GroupSelection(nn.Module):
    """Cuts a tensor along its axis of heads to those that stay.

    Args:
        kept: Heads that stay, ascending; None hands on the tensor as it is.
    """

    kept: Tensor | None

    def __init__(self, kept: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, bias_BHQK: Tensor) -> Tensor:
        """Select heads."""
        return bias_BHQK if self.kept is None else bias_BHQK.index_select(1, self.kept)


class SharedBiasAttention(nn.Module):
    """Stands around a T5 attention module and computes what that computes.

    Args:
        attention: The module. A table of relative positions is taken out of it, so that it outlives the module.
        takes_bias: Whether a bias by head is added; false for cross-attention, where T5 adds zeros.
    """

    def __init__(self, attention: Any, *, takes_bias: bool) -> None:
        super().__init__()
        self.attention = attention
        self.selection = GroupSelection() if takes_bias else None
        self.relative_attention_bias: nn.Module | None = None
        if attention.has_relative_attention_bias:
            self.relative_attention_bias = attention.relative_attention_bias
            del attention.relative_attention_bias
        self._bucket = type(attention)._relative_position_bucket
        self._bidirectional = not attention.is_decoder
        self._buckets = attention.relative_attention_num_buckets
        self._max_distance = attention.relative_attention_max_distance
        self._layer_index = attention.layer_idx

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Attend; returns the output, the bias of all heads for the next layer, and the attention weights."""
        if position_bias is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length(self._layer_index)
            position_bias = self._bias(hidden_states, seen)
        output, *_, weights = self.attention(
            hidden_states,
            mask=mask,
            key_value_states=key_value_states,
            position_bias=position_bias if self.selection is None else self.selection(position_bias),
            past_key_values=past_key_values,
            **others,
        )
        return output, position_bias, weights

    def _bias(self, hidden_states: Tensor, seen: int) -> Tensor:
        if self.relative_attention_bias is None:
            return hidden_states.new_zeros(1, 1, 1, 1)
        queries, device = hidden_states.shape[1], hidden_states.device
        query_Q1 = torch.arange(queries, device=device)[:, None] + seen
        key_1K = torch.arange(queries + seen, device=device)[None, :]
        buckets_QK = self._bucket(
            key_1K - query_Q1,
            bidirectional=self._bidirectional,
            num_buckets=self._buckets,
            max_distance=self._max_distance,
        )
        bias_QKH: Tensor = self.relative_attention_bias(buckets_QK)
        return bias_QKH.permute(2, 0, 1)[None]
