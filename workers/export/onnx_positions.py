"""Positions of a decoder as ONNX Runtime's own operators, for the export alone.

transformers writes the rotation of queries and keys as eleven small operators for each of them, and the causal mask as
two dozen. Where both compute what they usually do, the exported file holds one and nine; see
`benchmarks.decoder_kernels`.

Shape letters: B batch, H heads, S sequence, D columns of a head, R rotated columns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import masking_utils

_ROTATE = "apply_rotary_pos_emb"
_SLIDING = "create_sliding_window_causal_mask"
_MASKS: dict[str, Callable[..., Any]] = {
    name: getattr(masking_utils, name) for name in ("create_causal_mask", _SLIDING)
}
_HARMLESS = ("position_ids", "allow_is_causal_skip")
"""Arguments of a mask that change nothing where there is an attention mask and attention is eager."""
Rotate = Callable[..., tuple[Tensor, Tensor]]


@contextmanager
def onnx_positions(model: nn.Module) -> Iterator[None]:
    """Rotate positions and mask with few operators while the block runs.

    Args:
        model: A transformers model; modelling files that its modules come from are changed and put back, so that no
            other thread may run or export such a model meanwhile.
    """
    changed: list[tuple[ModuleType, str, Any]] = []
    for file in {sys.modules[type(part).__module__] for part in model.modules()}:
        found = {name: _mask(mask) for name, mask in _MASKS.items() if getattr(file, name, None) is mask}
        if callable(rotate := getattr(file, _ROTATE, None)):
            found[_ROTATE] = _rotation(rotate)
        changed += [(file, name, getattr(file, name)) for name in found]
        for name, replacement in found.items():
            setattr(file, name, replacement)
    try:
        yield
    finally:
        for file, name, original in changed:
            setattr(file, name, original)


def pairs_neighbours(rotate: Rotate) -> bool | None:
    """Tell which columns of a head a function rotates together.

    Args:
        rotate: Takes queries and keys (B, H, S, D), and cosines and sines (B, S, R) whose two halves are equal.

    Returns:
        True where columns 2i and 2i+1 make a pair, False where i and i+R/2 do, None where it does neither.
    """
    generator = torch.Generator().manual_seed(0)
    heads_BHSD = torch.randn(1, 2, 3, 4, generator=generator)
    angles_BSR = torch.rand(1, 3, 2, generator=generator).repeat(1, 1, 2)
    cos_BSR, sin_BSR = angles_BSR.cos(), angles_BSR.sin()
    try:
        found = rotate(heads_BHSD, heads_BHSD, cos_BSR, sin_BSR)
    except (RuntimeError, TypeError):
        return None
    for neighbours in (True, False):
        expected = rotated(heads_BHSD, cos_BSR, sin_BSR, neighbours=neighbours)
        if all(torch.allclose(each, expected, atol=1e-6) for each in found):
            return neighbours
    return None


def rotated(heads_BHSD: Tensor, cos_BSR: Tensor, sin_BSR: Tensor, *, neighbours: bool) -> Tensor:
    """Rotate pairs of the first R columns by their angles (RoFormer, arXiv:2104.09864, equation 34).

    Args:
        heads_BHSD: Queries or keys.
        cos_BSR: Cosines; the first R/2 are those of the pairs.
        sin_BSR: Sines, likewise.
        neighbours: Whether columns 2i and 2i+1 make a pair, and not i and i+R/2.
    """
    columns = cos_BSR.shape[-1]
    half = columns // 2
    cos, sin = cos_BSR[:, None, :, :half], sin_BSR[:, None, :, :half]
    found = heads_BHSD.clone()
    first, second = (slice(0, columns, 2), slice(1, columns, 2)) if neighbours else (slice(half), slice(half, columns))
    x, y = heads_BHSD[..., first], heads_BHSD[..., second]
    found[..., first] = x * cos - y * sin
    found[..., second] = y * cos + x * sin
    return found


def _rotation(original: Rotate) -> Rotate:
    """The rotation as com.microsoft.RotaryEmbedding; the original where it is another one."""
    neighbours = pairs_neighbours(original)
    if neighbours is None:
        return original

    def rotate(
        query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *positional: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        one_for_all = cos.ndim == 3 and isinstance(cos.shape[0], int) and cos.shape[0] == 1
        if positional or named or not one_for_all:
            return original(query, key, cos, sin, *positional, **named)
        half = cos.shape[-1] // 2
        angles = (cos[0, :, :half], sin[0, :, :half])
        return _embed(query, angles, neighbours), _embed(key, angles, neighbours)

    return rotate


def _embed(heads_BHSD: Tensor, angles: tuple[Tensor, Tensor], neighbours: bool) -> Tensor:
    columns = 2 * angles[0].shape[-1]
    attributes: dict[str, Any] = {"interleaved": int(neighbours)}
    if columns < heads_BHSD.shape[-1]:
        attributes |= {"rotary_embedding_dim": columns, "num_heads": heads_BHSD.shape[1]}
    found: Tensor = torch.onnx.ops.symbolic(
        "com.microsoft::RotaryEmbedding",
        (heads_BHSD, torch.zeros(1, dtype=torch.int64), *angles),
        attrs=attributes,
        dtype=heads_BHSD.dtype,
        shape=heads_BHSD.shape,
        version=1,
    )
    return found


def _mask(original: Callable[..., Any]) -> Callable[..., Any]:
    """The mask of earlier tokens that are no padding, as eager attention adds it, all of them or those of a window."""
    is_sliding = original is _MASKS[_SLIDING]

    def mask(
        config: Any,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        past_key_values: object = None,
        **others: Any,
    ) -> Any:
        further = any(value is not None for name, value in others.items() if name not in _HARMLESS)
        eager = config._attn_implementation == "eager" and getattr(config, "is_causal", True)
        if further or not eager or past_key_values is not None or attention_mask is None or attention_mask.ndim != 2:
            return original(config, inputs_embeds, attention_mask, past_key_values, **others)
        return causal_mask(attention_mask, inputs_embeds.dtype, window=config.sliding_window if is_sliding else None)

    return mask


def causal_mask(attention_mask_BS: Tensor, dtype: torch.dtype, *, window: int | None = None) -> Tensor:
    """Return what is added to scores: 0 where a token sees another, the least number elsewhere; (B, 1, S, S).

    Args:
        attention_mask_BS: 1 for tokens, 0 for padding.
        dtype: Type of the scores.
        window: How many tokens each sees, itself included; None for all before it.
    """
    places_S = torch.arange(attention_mask_BS.shape[1], device=attention_mask_BS.device)
    seen = (places_S[:, None] >= places_S) & attention_mask_BS[:, None, None, :].bool()
    if window is not None:
        seen = seen & (places_S[:, None] < places_S + window)
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)
