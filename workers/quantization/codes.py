"""Integer codes of a weight matrix, and how they are packed.

Shape letters: O output features, K input features, N blocks of K, G columns of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.formats import Format

FLOAT8_MAX = 448
"""Largest e4m3 number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """A quantized weight: weight = (codes - zeros) * scale, blockwise along K.

    Attributes:
        codes_OK: int8 where symmetric, uint8 elsewhere; float8_e4m3fn in formats of such codes.
        scale_ON: float32, one for each row and block; N = 1 for one scale a row.
        zeros_ON: uint8, or None where symmetric.
        block: Columns that share a scale; K where there is one scale a row.
    """

    codes_OK: Tensor
    scale_ON: Tensor
    zeros_ON: Tensor | None
    block: int

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for, float32, shape (O, K)."""
        columns = self.codes_OK.shape[1]
        scale_OK = self.scale_ON.repeat_interleave(self.block, dim=1)[:, :columns]
        centred_OK = self.codes_OK.float()
        if self.zeros_ON is not None:
            centred_OK = centred_OK - self.zeros_ON.float().repeat_interleave(self.block, dim=1)[:, :columns]
        return centred_OK * scale_OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values that a block of weights can take.

    Attributes:
        scale_O: Step of each row, float32, above 0.
        zeros_O: Code of the value 0, float32; 0 where symmetric.
        low: Smallest code.
        high: Largest code.
        is_float8: Whether codes are e4m3 numbers; else they are integers.
    """

    scale_O: Tensor
    zeros_O: Tensor
    low: int
    high: int
    is_float8: bool = False

    def codes(self, weight: Tensor) -> Tensor:
        """Nearest codes of weights of shape (O,) or (O, G), as float32."""
        scale, zeros = self.scale_O, self.zeros_O
        if weight.ndim == 2:
            scale, zeros = scale[:, None], zeros[:, None]
        if self.is_float8:
            return torch.clamp(weight.float() / scale, self.low, self.high).to(torch.float8_e4m3fn).float()
        return torch.clamp(torch.round(weight.float() / scale) + zeros, self.low, self.high)

    def values(self, codes: Tensor) -> Tensor:
        """Weights that codes of shape (O,) or (O, G) stand for."""
        if codes.ndim == 2:
            return (codes - self.zeros_O[:, None]) * self.scale_O[:, None]
        return (codes - self.zeros_O) * self.scale_O


def fit_grid(weight_OG: Tensor, target: Format) -> Grid:
    """Choose scale and zero point of each row from its range.

    Symmetric formats use -(2^(b-1) - 1) to 2^(b-1) - 1 around 0; affine ones 0 to 2^b - 1 over a range that holds 0;
    e4m3 all of its range, -448 to 448.
    """
    levels = 2**target.weight_bits - 1
    weight_OG = weight_OG.float()
    if target.is_float8:
        scale_O = _positive(weight_OG.abs().amax(1) / FLOAT8_MAX)
        zeros_O = torch.zeros_like(scale_O)
        return Grid(scale_O=scale_O, zeros_O=zeros_O, low=-FLOAT8_MAX, high=FLOAT8_MAX, is_float8=True)
    if target.symmetric:
        high = levels // 2
        scale_O = weight_OG.abs().amax(1) / high
        return Grid(scale_O=_positive(scale_O), zeros_O=torch.zeros_like(scale_O), low=-high, high=high)
    low_O, high_O = weight_OG.amin(1).clamp(max=0), weight_OG.amax(1).clamp(min=0)
    scale_O = _positive((high_O - low_O) / levels)
    return Grid(scale_O=scale_O, zeros_O=torch.clamp(torch.round(-low_O / scale_O), 0, levels), low=0, high=levels)


def _positive(scale_O: Tensor) -> Tensor:
    return torch.where(scale_O > 0, scale_O, torch.ones_like(scale_O))


def block_size(target: Format, in_features: int) -> int:
    """Columns that share a scale in a layer of that width."""
    return in_features if target.group_size is None else target.group_size


def collect(weight_OK: Tensor, target: Format, quantize_block: Callable[[int, int], tuple[Grid, Tensor]]) -> Codes:
    """Assemble codes block by block.

    Args:
        weight_OK: The weight; only its shape is used.
        target: The format.
        quantize_block: (first column, end column) -> (grid, codes of shape (O, G)).
    """
    columns = weight_OK.shape[1]
    block = block_size(target, columns)
    grids, codes = [], []
    for number in range(math.ceil(columns / block)):
        grid, codes_OG = quantize_block(number * block, min(columns, (number + 1) * block))
        grids.append(grid)
        codes.append(codes_OG)
    return Codes(
        codes_OK=torch.cat(codes, 1).to(code_type(target)),
        scale_ON=torch.stack([grid.scale_O for grid in grids], 1),
        zeros_ON=None if target.symmetric else torch.stack([grid.zeros_O for grid in grids], 1).to(torch.uint8),
        block=block,
    )


def code_type(target: Format) -> torch.dtype:
    """Type that codes of a format are kept in."""
    if target.is_float8:
        return torch.float8_e4m3fn
    return torch.int8 if target.symmetric else torch.uint8


def round_to_nearest(weight_OK: Tensor, target: Format) -> Codes:
    """Quantize each weight to its nearest code, the baseline that needs no data."""

    def quantize_block(start: int, end: int) -> tuple[Grid, Tensor]:
        grid = fit_grid(weight_OK[:, start:end], target)
        return grid, grid.codes(weight_OK[:, start:end])

    return collect(weight_OK, target, quantize_block)


def pack_nibbles(codes: Tensor) -> Tensor:
    """Pack 4-bit codes in pairs along the last axis, the first one in the low half of the byte; odd ends get 0."""
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """Undo `pack_nibbles`; `count` is the length of the last axis."""
    return torch.stack([packed & 15, packed >> 4], -1).flatten(-2)[..., :count]
