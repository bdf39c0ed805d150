"""Pruning by magnitude: what is left computes as the dense model does without the channels that went."""

import copy

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.peers.magnitude import prune_feed_forward


@pytest.fixture
def model():
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    return BertForSequenceClassification(config).eval().requires_grad_(False)


def test_feed_forward_channels_go_and_nothing_else(model):
    dense = copy.deepcopy(model)
    inputs = {"input_ids": torch.arange(8)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    prune_feed_forward(model, inputs, 0.25)
    for before, after in zip(dense.bert.encoder.layer, model.bert.encoder.layer, strict=True):
        assert after.attention.self.query.weight.shape == (16, 16)
        kept = (before.intermediate.dense.weight[:, None] == after.intermediate.dense.weight[None]).all(-1).any(1)
        assert (len(after.intermediate.dense.weight), int(kept.sum())) == (24, 24)
        before.output.dense.weight[:, ~kept] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, dense(**inputs).logits)
