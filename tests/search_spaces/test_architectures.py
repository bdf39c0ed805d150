"""Units of real transformers classes: every linear layer of an encoder layer is named, and sizes add up."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from evaluators.size import size_bytes
from search_spaces.architectures import UnsupportedModelError, structure_of
from search_spaces.policy import Choice, Policy


def _bert(**fields: Any) -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80, **fields
    )
    with torch.device("meta"):
        return transformers.BertForSequenceClassification(config)


def _vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80, image_size=24, patch_size=8
    )
    with torch.device("meta"):
        return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize("model", [_bert(), _vit()], ids=["bert", "vit"])
class TestStructure:
    def test_units_in_order(self, model: nn.Module) -> None:
        structure = structure_of(model)
        assert [u.name for u in structure.units] == [
            f"layer.{i}.{kind}" for i in range(3) for kind in ("attention", "feed_forward")
        ]
        assert [u.groups for u in structure.units] == [4, 80] * 3

    def test_shapes_are_the_models(self, model: nn.Module) -> None:
        for unit in structure_of(model).units:
            for layer, out_features, in_features in unit.layer_shapes(unit.groups):
                assert tuple(model.get_submodule(layer).weight.shape) == (out_features, in_features)
            assert unit.branch is not None
            assert isinstance(model.get_submodule(unit.branch.module), nn.Module)

    def test_every_linear_layer_of_an_encoder_layer_belongs_to_one_unit(self, model: nn.Module) -> None:
        named = [layer for unit in structure_of(model).units for layer in unit.layers]
        linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        outside = {name for name in linear if "layer" not in name}
        assert len(named) == len(set(named))
        assert set(named) == linear - outside

    def test_dense_size_is_all_parameters(self, model: nn.Module) -> None:
        structure = structure_of(model)
        dense = Policy({u.name: Choice(u.groups, "fp32") for u in structure.units})
        assert size_bytes(structure, dense) == 4 * sum(p.numel() for p in model.parameters())


def test_tokens() -> None:
    bert, vit = structure_of(_bert(max_position_embeddings=99)), structure_of(_vit())
    assert (bert.tokens, bert.max_tokens) == (None, 99)
    assert (vit.tokens, vit.max_tokens) == (10, 10)


def test_unsupported_architecture_lists_the_supported_ones() -> None:
    with torch.device("meta"):
        model = transformers.DistilBertForSequenceClassification(
            transformers.DistilBertConfig(vocab_size=50, dim=48, n_layers=1, n_heads=4, hidden_dim=80)
        )
    with pytest.raises(UnsupportedModelError, match=r"type 'distilbert' are not supported; supported: bert, .*vit"):
        structure_of(model)


def test_a_model_that_is_built_otherwise_is_refused() -> None:
    bare = _bert().bert
    with pytest.raises(UnsupportedModelError, match="BertModel is not built as the architecture 'bert' expects"):
        structure_of(bare)
