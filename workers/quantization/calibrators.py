"""Static ranges of activations, chosen from a histogram that is filled batch by batch.

Shape letters: B bins, R candidate ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

_HALF_BINS = 4096
_FEWEST_LEVELS = 128
"""Levels that a clipped distribution is rounded to when its divergence is taken, as TensorRT does for signed codes."""
_SHRINKS = 64
_COARSE_BINS = 2048


class RangeMethod(StrEnum):
    """How a static range is chosen."""

    MIN_MAX = "min_max"
    """From the smallest to the largest value seen."""
    PERCENTILE = "percentile"
    """Without the outermost values, a fixed share of all (McKinstry et al., 1809.04191)."""
    SQUARED_ERROR = "squared_error"
    """Least mean squared error between values and codes (Choukroun et al., 1902.06822)."""
    KL_DIVERGENCE = "kl_divergence"
    """Least divergence between the distributions before and after (Migacz, 8-bit inference with TensorRT, 2017)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationRange:
    """The values that codes span; 0 is always one of them.

    Attributes:
        low: At most 0.
        high: At least 0.
    """

    low: float
    high: float


class Histogram:
    """Counts of values in bins of equal width around zero. The width is a power of two and grows by pairs of bins.

    So what is counted does not depend on the order of the batches, and no count is ever spread over bins.

    Args:
        half_bins: Bins on each side of zero; a power of two. At least half of one side is in use.
    """

    def __init__(self, half_bins: int = _HALF_BINS) -> None:
        if half_bins < 2 or half_bins & (half_bins - 1):
            raise ValueError(f"half_bins is a power of two, 2 or more; got {half_bins}")
        self.counts_B = torch.zeros(2 * half_bins, dtype=torch.float64)
        """Values of each bin, the most negative first."""
        self.width = 0.0
        """Width of a bin; 0 while all values were 0."""
        self.low, self.high = 0.0, 0.0
        """Smallest and largest value, and 0."""
        self._half_bins = half_bins

    @property
    def centres_B(self) -> Tensor:
        """Middles of the bins, float64."""
        offsets_B = torch.arange(-self._half_bins, self._half_bins, dtype=torch.float64) + 0.5
        return offsets_B * self.width

    @property
    def total(self) -> float:
        """How many values were counted."""
        return float(self.counts_B.sum())

    def add(self, values: Tensor) -> None:
        """Count values of any shape.

        Raises:
            ValueError: One is not finite.
        """
        if not values.numel():
            return
        values_V = values.detach().flatten().double().cpu()
        low, high = float(values_V.min()), float(values_V.max())
        if not math.isfinite(low + high):
            raise ValueError(f"values of a histogram are finite; got values from {low} to {high}")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        bins_V = torch.zeros_like(values_V) if self.width == 0 else (values_V / self.width).floor_()
        bins_V = (bins_V + self._half_bins).long().clamp_(0, 2 * self._half_bins - 1)
        self.counts_B += torch.bincount(bins_V, minlength=2 * self._half_bins)

    def _widen(self, largest: float) -> None:
        needed = 2.0 ** math.ceil(math.log2(largest / self._half_bins)) if largest else 0.0
        if self.width == 0 and needed:
            self.width = needed
        while self.width < needed:
            pairs_B = self.counts_B.view(-1, 2).sum(1)
            self.counts_B = torch.nn.functional.pad(pairs_B, (self._half_bins // 2, self._half_bins // 2))
            self.width *= 2


def choose_range(histogram: Histogram, method: RangeMethod, *, levels: int = 256) -> ActivationRange:
    """Choose a static range.

    Args:
        histogram: Of all values seen.
        method: How.
        levels: Codes that the range is spread over.
    """
    match method:
        case RangeMethod.MIN_MAX:
            return min_max_range(histogram)
        case RangeMethod.PERCENTILE:
            return percentile_range(histogram)
        case RangeMethod.SQUARED_ERROR:
            return squared_error_range(histogram, levels=levels)
        case RangeMethod.KL_DIVERGENCE:
            return divergence_range(histogram, levels=levels // 2)


def min_max_range(histogram: Histogram) -> ActivationRange:
    """The range of all values, and 0."""
    return ActivationRange(low=histogram.low, high=histogram.high)


def percentile_range(histogram: Histogram, *, share: float = 0.9999) -> ActivationRange:
    """The range without the outermost values.

    Args:
        histogram: Of all values seen.
        share: Share of the values that lie inside, as many cut off at one end as at the other; above 0, at most 1.

    Returns:
        Ends that are edges of bins.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of values inside lies above 0 and is at most 1; got {share}")
    if histogram.width == 0:
        return min_max_range(histogram)
    outside = math.floor((1 - share) / 2 * histogram.total + 1e-6)
    below_B = histogram.counts_B.cumsum(0)
    above_B = histogram.total - below_B
    first = int((below_B <= outside).sum())
    last = int((above_B > outside).sum())
    half = len(below_B) // 2
    return ActivationRange(
        low=max(histogram.low, min(0.0, (first - half) * histogram.width)),
        high=min(histogram.high, max(0.0, (last + 1 - half) * histogram.width)),
    )


def squared_error_range(histogram: Histogram, *, levels: int = 256, rounds: int = 2) -> ActivationRange:
    """The range with the least squared error, its ends shrunk in turn from those of all values.

    Args:
        histogram: Of all values seen.
        levels: Codes, spread evenly over the range so that 0 is one of them.
        rounds: How often each end is searched.
    """
    low, high = histogram.low, histogram.high
    shrinks_R = torch.linspace(1 / _SHRINKS, 1, _SHRINKS, dtype=torch.float64)
    for _ in range(rounds if histogram.width else 0):
        if high > 0:
            highs_R = shrinks_R * histogram.high
            high = float(highs_R[_squared_errors(histogram, torch.full_like(highs_R, low), highs_R, levels).argmin()])
        if low < 0:
            lows_R = shrinks_R * histogram.low
            low = float(lows_R[_squared_errors(histogram, lows_R, torch.full_like(lows_R, high), levels).argmin()])
    return ActivationRange(low=low, high=high)


def round_to_levels(values: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    """Values that affine codes over a range stand for; all arguments broadcast."""
    step = torch.clamp((high - low) / (levels - 1), min=torch.finfo(torch.float64).tiny)
    zero = torch.round(-low / step)
    return (torch.clamp(torch.round(values / step) + zero, 0, levels - 1) - zero) * step


def _squared_errors(histogram: Histogram, low_R: Tensor, high_R: Tensor, levels: int) -> Tensor:
    used_B = histogram.counts_B > 0
    centres_B, counts_B = histogram.centres_B[used_B], histogram.counts_B[used_B]
    rounded_RB = round_to_levels(centres_B, low_R[:, None], high_R[:, None], levels)
    return ((rounded_RB - centres_B) ** 2) @ counts_B


def divergence_range(histogram: Histogram, *, levels: int = _FEWEST_LEVELS) -> ActivationRange:
    """The range, equally far on both sides as far as there are values, whose codes' distribution diverges least.

    Args:
        histogram: Of all values seen.
        levels: Codes for the absolute values.

    Reference: Migacz, 8-bit inference with TensorRT (2017), the entropy calibration.
    """
    half = len(histogram.counts_B) // 2
    counts_B = histogram.counts_B[half:] + histogram.counts_B[:half].flip(0)
    factor = max(1, len(counts_B) // _COARSE_BINS)
    counts_B = counts_B.view(-1, factor).sum(1)
    used = int((counts_B > 0).nonzero().max()) + 1 if histogram.width else 0
    if used <= levels:
        return min_max_range(histogram)
    divergences = [clipped_divergence(counts_B, bins, levels) for bins in range(levels, used + 1)]
    limit = (levels + min(range(len(divergences)), key=divergences.__getitem__)) * factor * histogram.width
    return ActivationRange(low=max(histogram.low, -limit), high=min(histogram.high, limit))


def clipped_divergence(counts_B: Tensor, bins: int, levels: int) -> float:
    """KL divergence of a distribution cut after some bins, the rest in the last of them, from its rounded form.

    Args:
        counts_B: Counts of absolute values.
        bins: Bins that stay.
        levels: Codes that share them.
    """
    inside_B = counts_B[:bins]
    reference_B = inside_B.clone()
    reference_B[-1] += counts_B[bins:].sum()
    level_B = torch.div(torch.arange(bins) * levels, bins, rounding_mode="floor")
    is_used_B = inside_B > 0
    sums_L = torch.zeros(levels, dtype=torch.float64).index_add_(0, level_B, inside_B)
    used_L = torch.zeros(levels, dtype=torch.float64).index_add_(0, level_B, is_used_B.double())
    rounded_B = torch.where(is_used_B, (sums_L / used_L.clamp(min=1))[level_B], 0.0)
    share_B, other_B = reference_B / reference_B.sum(), rounded_B / rounded_B.sum().clamp(min=1e-300)
    wanted_B = share_B > 0
    if bool((other_B[wanted_B] <= 0).any()):
        return math.inf
    return float((share_B[wanted_B] * (share_B[wanted_B] / other_B[wanted_B]).log()).sum())
