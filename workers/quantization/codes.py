"""Integer codes of a weight matrix, and how they are packed.

Shape letters: O output features, K input features, N blocks of K, G columns of a block.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.formats import Format

_UNCUT_BITS = 8
_CUTS, _LEAST_SHARE = 32, 0.6
"""Ranges are tried in so many steps down to this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """A quantized weight: weight = (codes - zeros) * scale, blockwise along K.

    Attributes:
        codes_OK: int8 where symmetric, uint8 elsewhere.
        scale_ON: float32, one for each row and block; N = 1 for one scale a row, O = 1 for one in all.
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
    """

    scale_O: Tensor
    zeros_O: Tensor
    low: int
    high: int

    def codes(self, weight: Tensor) -> Tensor:
        """Nearest codes of weights of shape (O,) or (O, G), as float32."""
        scale, zeros = self.scale_O, self.zeros_O
        if weight.ndim == 2:
            scale, zeros = scale[:, None], zeros[:, None]
        return torch.clamp(torch.round(weight.float() / scale) + zeros, self.low, self.high)

    def values(self, codes: Tensor) -> Tensor:
        """Weights that codes of shape (O,) or (O, G) stand for."""
        if codes.ndim == 2:
            return (codes - self.zeros_O[:, None]) * self.scale_O[:, None]
        return (codes - self.zeros_O) * self.scale_O


def fit_grid(weight_OG: Tensor, target: Format, importance_G: Tensor | None = None) -> Grid:
    """Choose scale and zero point of each row, or of all rows together where the format has one for the whole weight.

    Symmetric formats use -(2^(b-1) - 1) to 2^(b-1) - 1 around 0; affine ones 0 to 2^b - 1 over a range that holds 0.

    Args:
        weight_OG: Weights that share a grid row by row.
        target: The format.
        importance_G: How much a squared error in each column counts. Where it is given, the range of a row is cut as
            far as that lowers its error; else, and in formats of 8 bits, which gain nothing, all weights lie inside.

    Reference: Choukroun et al., 1902.06822, for ranges of least squared error.
    """
    weight_OG = weight_OG.float()
    if target.per_tensor:
        whole = fit_grid(weight_OG.reshape(1, -1), dataclasses.replace(target, per_tensor=False))
        rows = len(weight_OG)
        return dataclasses.replace(whole, scale_O=whole.scale_O.expand(rows), zeros_O=whole.zeros_O.expand(rows))
    best = _grid(weight_OG, target, share=1.0)
    if importance_G is None or target.weight_bits >= _UNCUT_BITS:
        return best
    importance_G = importance_G.to(weight_OG)
    error_O = _grid_errors(best, weight_OG, importance_G)
    for step in range(1, _CUTS + 1):
        grid = _grid(weight_OG, target, share=1 - (1 - _LEAST_SHARE) * step / _CUTS)
        cut_O = _grid_errors(grid, weight_OG, importance_G)
        best = dataclasses.replace(
            best,
            scale_O=torch.where(cut_O < error_O, grid.scale_O, best.scale_O),
            zeros_O=torch.where(cut_O < error_O, grid.zeros_O, best.zeros_O),
        )
        error_O = torch.minimum(error_O, cut_O)
    return best


def _grid(weight_OG: Tensor, target: Format, *, share: float) -> Grid:
    """The grid over a share of each row's range."""
    levels = 2**target.weight_bits - 1
    if target.symmetric:
        high = levels // 2
        scale_O = share * weight_OG.abs().amax(1) / high
        return Grid(scale_O=_positive(scale_O), zeros_O=torch.zeros_like(scale_O), low=-high, high=high)
    low_O, high_O = share * weight_OG.amin(1).clamp(max=0), share * weight_OG.amax(1).clamp(min=0)
    scale_O = _positive((high_O - low_O) / levels)
    return Grid(scale_O=scale_O, zeros_O=torch.clamp(torch.round(-low_O / scale_O), 0, levels), low=0, high=levels)


def _grid_errors(grid: Grid, weight_OG: Tensor, importance_G: Tensor) -> Tensor:
    return (grid.values(grid.codes(weight_OG)) - weight_OG).square() @ importance_G


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
    rows = 1 if target.per_tensor else len(weight_OK)
    zeros_ON = torch.stack([grid.zeros_O[:rows] for grid in grids], 1).to(torch.uint8)
    return Codes(
        codes_OK=torch.cat(codes, 1).to(torch.int8 if target.symmetric else torch.uint8),
        scale_ON=torch.stack([grid.scale_O[:rows] for grid in grids], 1),
        zeros_ON=None if target.symmetric else zeros_ON,
        block=block,
    )


def round_to_nearest(weight_OK: Tensor, target: Format, importance_K: Tensor | None = None) -> Codes:
    """Quantize each weight to its nearest code, the baseline.

    Args:
        weight_OK: The weight.
        target: The format.
        importance_K: How much errors in each column count when ranges are cut; None cuts none and needs no data.
    """

    def quantize_block(start: int, end: int) -> tuple[Grid, Tensor]:
        importance_G = None if importance_K is None else importance_K[start:end]
        grid = fit_grid(weight_OK[:, start:end], target, importance_G)
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
