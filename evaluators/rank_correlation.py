"""Spearman's rank correlation, and what each example contributes to it.

Shape letters: N examples, K of them left out in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CHUNK_ELEMENTS = 2**22
"""Ranks that are looked at at once: without each example all others have ranks of their own."""


def spearman(first_N: torch.Tensor, second_N: torch.Tensor) -> float:
    """Rank correlation of two lists, ties at the mean of their ranks.

    Args:
        first_N: Numbers.
        second_N: As many.

    Returns:
        -1 to 1; 0 where one list is constant, so that nothing is known; NaN where a number is NaN.
    """
    import torch

    if bool((first_N.isnan() | second_N.isnan()).any()):
        return float("nan")
    ranks = (_ranks(first_N.double()), _ranks(second_N.double()))
    return float(_correlation(*ranks, torch.ones_like(ranks[0])))


def spearman_by_example(first_N: torch.Tensor, second_N: torch.Tensor) -> torch.Tensor:
    """Pseudo-values of the rank correlation: their mean is the correlation, and they err like independent examples.

    A rank correlation is no mean over examples, so neither intervals nor paired tests apply to it as they do to an
    accuracy. The jackknife's pseudo-value of an example is how much the correlation rests on it, from what the others
    have without it, and the mean of these values has the variance of the correlation. They are moved by their bias, so
    that the mean is the correlation itself.

    Args:
        first_N: Numbers.
        second_N: As many.

    Returns:
        float64 of shape (N,), without bounds; all NaN where a number is NaN.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11, equation 11.16.
    """
    import torch

    whole = spearman(first_N, second_N)
    count = len(first_N)
    if count < 2 or whole != whole:
        return torch.full((count,), whole, dtype=torch.float64)
    pairs = [(_ranks(values), values) for values in (first_N.double(), second_N.double())]
    step = max(1, _CHUNK_ELEMENTS // count)
    without_N = torch.cat(
        [_left_out(pairs, torch.arange(count)[start : start + step]) for start in range(0, count, step)]
    )
    return whole + (count - 1) * (without_N.mean() - without_N)


def _left_out(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], left_K: torch.Tensor) -> torch.Tensor:
    """Correlation of all examples but one, for each of those that are left out in turn; shape (K,)."""
    import torch

    first_KN, second_KN = (ranks[None, :] - _above(values[None, :], values[left_K, None]) for ranks, values in pairs)
    others_KN = (left_K[:, None] != torch.arange(len(pairs[0][0]))[None, :]).double()
    return _correlation(first_KN, second_KN, others_KN)


def _ranks(values_N: torch.Tensor) -> torch.Tensor:
    """Ranks from 1, those of equal numbers at their mean."""
    import torch

    _, group_N, size_G = torch.unique(values_N, sorted=True, return_inverse=True, return_counts=True)
    size_G = size_G.double()
    rank_G: torch.Tensor = size_G.cumsum(0) - (size_G - 1) / 2
    return rank_G[group_N]


def _above(values: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
    """By how much ranks fall when one number is taken out: 1 above it, a half where equal to it."""
    return (values > removed).double() + (values == removed).double() / 2


def _correlation(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation along the last axis of what has weight 1; 0 where one side is constant."""
    import torch

    count = weight.sum(-1, keepdim=True)
    first, second = ((x - (x * weight).sum(-1, keepdim=True) / count) * weight for x in (first, second))
    scale = (first.square().sum(-1) * second.square().sum(-1)).sqrt()
    # Ranks differ by a half or not at all: what is below is rounding.
    found = (first * second).sum(-1) / scale.clamp(min=1e-6)
    return torch.where(scale < 1e-6, torch.zeros_like(found), found.clamp(-1, 1))
