"""Rotations and masks that stand in for those of transformers while a model is exported."""

import importlib
import types
from typing import Any

import pytest
import torch
from tiny_families import FAMILIES
from torch import Tensor
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama

from workers.export.onnx_positions import causal_mask, onnx_positions, pairs_neighbours, rotated

DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "glm", "glm4")


def rotation_of(family: str) -> Any:
    return importlib.import_module(f"transformers.models.{family}.modeling_{family}").apply_rotary_pos_emb


@pytest.mark.parametrize("family", DECODERS)
def test_every_decoder_pairs_the_columns_that_its_units_say(family: str) -> None:
    from search_spaces.architectures import structure_of

    model: Any = FAMILIES[family]()
    rotations = {unit.rotation for unit in structure_of(model).units if unit.rotation is not None}
    (rotation,) = rotations
    assert rotation.neighbours == pairs_neighbours(rotation_of(family))
    cosines, _ = model.model.rotary_emb(torch.zeros(1, 3, 32), torch.arange(3)[None])
    assert rotation.columns == cosines.shape[-1]


@pytest.mark.parametrize(
    ("family", "neighbours", "head_dim"), [("llama", False, 6), ("glm", True, 6), ("glm", True, 10)]
)
def test_pairs_are_rotated_as_transformers_does(family: str, neighbours: bool, head_dim: int) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randn(2, heads, 5, head_dim, generator=generator) for heads in (4, 2))
    angles = torch.rand(1, 5, 3, generator=generator).repeat(1, 1, 2)
    expected = rotation_of(family)(query, key, angles.cos(), angles.sin())
    found = [rotated(heads, angles.cos(), angles.sin(), neighbours=neighbours) for heads in (query, key)]
    torch.testing.assert_close(found, list(expected))


def test_another_rotation_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return modeling_llama.apply_rotary_pos_emb(query, key, cos, -sin)

    def by_name(query: Tensor) -> Tensor:
        return query

    monkeypatch.setattr(modeling_glm, "apply_rotary_pos_emb", backwards)
    assert pairs_neighbours(backwards) is None
    assert pairs_neighbours(by_name) is None
    with onnx_positions(FAMILIES["glm"]()):
        assert modeling_glm.apply_rotary_pos_emb is backwards


def test_what_was_changed_is_put_back() -> None:
    def now() -> tuple[Any, Any]:
        return modeling_llama.apply_rotary_pos_emb, modeling_llama.create_causal_mask

    def fail() -> None:
        with onnx_positions(FAMILIES["llama"]()):
            assert not set(now()) & set(before)
            raise ValueError("on the way")

    before = now()
    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert now() == before


@pytest.mark.parametrize("window", [None, 3, 10])
@pytest.mark.parametrize("padded", [[0, 0], [2, 0], [0, 3], [6, 0]], ids=["whole", "left", "right", "all"])
def test_the_mask_is_that_of_transformers(padded: list[int], window: int | None) -> None:
    tokens = torch.ones(2, 6, dtype=torch.int64)
    tokens[0, : padded[0]] = 0
    tokens[1, 6 - padded[1] :] = 0
    config = types.SimpleNamespace(_attn_implementation="eager", is_causal=True, sliding_window=window)
    create = create_causal_mask if window is None else create_sliding_window_causal_mask
    expected = create(config, torch.zeros(2, 6, 4), tokens, None)
    assert causal_mask(tokens, torch.float32, window=window).equal(expected)


def test_a_mask_of_its_own_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def chunked(*arguments: Any) -> None:
        """Of a model that is not one of transformers'."""

    monkeypatch.setattr(modeling_llama, "create_causal_mask", chunked)
    with onnx_positions(FAMILIES["llama"]()):
        assert modeling_llama.create_causal_mask is chunked


@pytest.mark.parametrize("changed", ["mask of four axes", "no mask", "not eager", "further mask", "both directions"])
def test_an_unusual_mask_is_left_to_transformers(changed: str) -> None:
    model: Any = FAMILIES["llama"]()
    model.set_attn_implementation("sdpa" if changed == "not eager" else "eager")
    tokens: Tensor | None = torch.ones(2, 6, dtype=torch.int64)
    others: dict[str, Any] = {}
    if changed == "mask of four axes":
        tokens = torch.zeros(2, 1, 6, 6)
    elif changed == "no mask":
        tokens = None
    elif changed == "both directions":
        model.config.is_causal = False
    elif changed == "further mask":
        others["and_mask_function"] = lambda batch, head, query, key: query - key < 2
    arguments = (model.config, torch.zeros(2, 6, 32), tokens, None)
    expected = create_causal_mask(*arguments, **others)
    with onnx_positions(model):
        found = modeling_llama.create_causal_mask(*arguments, **others)
    assert (found is None and expected is None) or found.equal(expected)
