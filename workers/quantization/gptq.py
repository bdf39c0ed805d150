"""GPTQ: weights are rounded column by column, each error made up for by the columns still to come.

Shape letters: O output features, K input features, G columns of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from search_spaces.formats import Format
from workers.pruning.hessian_ops import damped_cholesky
from workers.quantization.codes import Codes, Grid, collect, fit_grid

DAMPING = 0.01
"""Share of the Gram matrix's mean diagonal that is added to its diagonal."""
_LAZY_COLUMNS = 128


def gptq(weight_OK: Tensor, gram_KK: Tensor, target: Format) -> Codes:
    """Quantize a weight so that the layer's outputs on the calibration data change little.

    Args:
        weight_OK: Weight, shape (O, K).
        gram_KK: Second moments of the layer's input, float64, shape (K, K).
        target: The format; scales are fitted to each block when it is reached.

    Reference: Frantar et al., GPTQ, 2210.17323, algorithm 1.
    """
    factor_KK = _inverse_factor(gram_KK)
    work_OK = weight_OK.double().clone()

    def quantize_block(start: int, end: int) -> tuple[Grid, Tensor]:
        grid = fit_grid(work_OK[:, start:end], target, gram_KK.diagonal()[start:end])
        codes_OG = torch.empty(len(work_OK), end - start)
        for first in range(start, end, _LAZY_COLUMNS):
            last = min(end, first + _LAZY_COLUMNS)
            codes_OG[:, first - start : last - start] = _quantize_columns(work_OK, factor_KK, grid, first, last)
        return grid, codes_OG

    return collect(weight_OK, target, quantize_block)


def _quantize_columns(work_OK: Tensor, factor_KK: Tensor, grid: Grid, first: int, last: int) -> Tensor:
    """Quantize columns first to last, and update `work_OK` in place: at once within them, at the end beyond."""
    codes_OG = torch.empty(len(work_OK), last - first)
    errors_OG = torch.empty(len(work_OK), last - first, dtype=work_OK.dtype)
    for column in range(first, last):
        codes_O = grid.codes(work_OK[:, column])
        codes_OG[:, column - first] = codes_O
        error_O = (work_OK[:, column] - grid.values(codes_O).double()) / factor_KK[column, column]
        work_OK[:, column + 1 : last] -= torch.outer(error_O, factor_KK[column, column + 1 : last])
        errors_OG[:, column - first] = error_O
    work_OK[:, last:] -= errors_OG @ factor_KK[first:last, last:]
    return codes_OG


def _inverse_factor(gram_KK: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped Gram matrix; dead inputs count as independent."""
    mean = float(gram_KK.diagonal().mean())
    damping = DAMPING * mean if mean > 0 else 1.0
    inverse_KK = torch.cholesky_inverse(damped_cholesky(gram_KK, damping))
    factor_KK: Tensor = torch.linalg.cholesky(inverse_KK, upper=True)
    return factor_KK
