"""Histograms and ranges against naive ones that hold every value."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.quantization.calibrators import (
    Histogram,
    RangeMethod,
    choose_range,
    clipped_divergence,
    divergence_range,
    min_max_range,
    percentile_range,
    round_to_levels,
    squared_error_range,
)


def _values(kind: str, count: int = 20_000, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, generator=generator)
    match kind:
        case "normal":
            return normal
        case "relu":
            return normal.relu()
        case "heavy":
            return normal**3
        case "outlier":
            return torch.cat([normal, torch.tensor([80.0])])
        case _:
            return torch.nn.functional.gelu(normal * 2)


KINDS = ["normal", "relu", "heavy", "outlier", "gelu"]


def _filled(values: torch.Tensor, parts: int = 7, half_bins: int = 4096) -> Histogram:
    histogram = Histogram(half_bins)
    for part in values.chunk(parts):
        histogram.add(part)
    return histogram


class TestHistogram:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=20), max_size=6),
        st.sampled_from([2, 8, 64]),
        st.randoms(),
    )
    def test_order_and_batches_do_not_matter(self, batches: list[list[float]], half_bins: int, draw: object) -> None:
        one, other = Histogram(half_bins), Histogram(half_bins)
        flat = [value for batch in batches for value in batch]
        for batch in batches:
            one.add(torch.tensor(batch))
        draw.shuffle(flat)  # type: ignore[attr-defined]
        other.add(torch.tensor(flat))
        assert one.width == other.width
        assert one.counts_B.equal(other.counts_B)
        assert (one.low, one.high) == (other.low, other.high)
        assert one.total == len(flat)

    @pytest.mark.parametrize("kind", KINDS)
    def test_counts_are_numpys(self, kind: str) -> None:
        values = _values(kind)
        histogram = _filled(values, half_bins=64)
        edges = np.arange(-64, 65) * histogram.width
        expected, _ = np.histogram(values.double().numpy(), edges)
        assert np.array_equal(histogram.counts_B.numpy(), expected)
        assert histogram.width >= float(values.abs().max()) / 64 > histogram.width / 2

    def test_values_that_are_not_finite_are_refused(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            Histogram().add(torch.tensor([1.0, math.inf]))

    def test_bins_are_a_power_of_two(self) -> None:
        with pytest.raises(ValueError, match="power of two"):
            Histogram(100)


def _naive_error(values: torch.Tensor, low: float, high: float, levels: int) -> float:
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    codes = np.clip(np.rint(values.double().numpy() / step) + zero, 0, levels - 1)
    return float((((codes - zero) * step - values.double().numpy()) ** 2).mean())


@pytest.mark.parametrize("kind", KINDS)
class TestRanges:
    def test_min_max(self, kind: str) -> None:
        values = _values(kind)
        found = min_max_range(_filled(values))
        assert (found.low, found.high) == (min(0.0, float(values.min())), max(0.0, float(values.max())))

    @pytest.mark.parametrize("share", [0.9, 0.99, 0.9999])
    def test_percentile_is_the_sorted_one_to_a_bin(self, kind: str, share: float) -> None:
        values = _values(kind).double().sort().values
        histogram = _filled(values)
        found = percentile_range(histogram, share=share)
        cut = int((1 - share) / 2 * len(values) + 1e-9)
        low, high = min(0.0, float(values[cut])), max(0.0, float(values[-1 - cut]))
        assert found.low <= low + 1e-9
        assert found.low == pytest.approx(low, abs=1.01 * histogram.width)
        assert found.high >= high - 1e-9
        assert found.high == pytest.approx(high, abs=1.01 * histogram.width)

    @pytest.mark.parametrize("levels", [16, 256])
    def test_squared_error_is_that_of_a_search_over_all_values(self, kind: str, levels: int) -> None:
        values = _values(kind)
        found = squared_error_range(_filled(values), levels=levels)
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
        lows = [low * n / 64 for n in range(1, 65)] if low < 0 else [0.0]
        highs = [high * n / 64 for n in range(1, 65)] if high > 0 else [0.0]
        some = values[:: max(1, len(values) // 2000)]
        best_high = min(highs, key=lambda end: _naive_error(values, low, end, levels))
        best_low = min(lows, key=lambda end: _naive_error(values, end, best_high, levels))
        naive = _naive_error(values, best_low, best_high, levels)
        assert len(some)
        assert _naive_error(values, found.low, found.high, levels) <= 1.02 * naive
        assert naive <= _naive_error(values, low, high, levels)

    def test_least_divergence_of_all_cuts(self, kind: str) -> None:
        values = _values(kind)
        histogram = _filled(values, half_bins=256)
        found = divergence_range(histogram, levels=16)
        counts = np.histogram(values.abs().double().numpy(), np.arange(257) * histogram.width)[0]
        used = int(counts.nonzero()[0].max()) + 1
        naive = {bins: _naive_divergence(counts, bins, 16) for bins in range(16, used + 1)}
        limit = min(naive, key=naive.__getitem__) * histogram.width
        assert found.high == pytest.approx(min(limit, max(0.0, float(values.max()))))
        assert found.low == pytest.approx(max(-limit, min(0.0, float(values.min()))))

    @pytest.mark.parametrize("method", list(RangeMethod))
    def test_every_range_holds_zero_and_lies_within_all_values(self, kind: str, method: RangeMethod) -> None:
        histogram = _filled(_values(kind))
        found = choose_range(histogram, method)
        assert histogram.low <= found.low <= 0 <= found.high <= histogram.high
        assert found.low < found.high


def _naive_divergence(counts: np.ndarray, bins: int, levels: int) -> float:
    """Bin by bin, with loops."""
    inside = counts[:bins].astype(float)
    reference = inside.copy()
    reference[-1] += counts[bins:].sum()
    members: dict[int, list[int]] = {}
    for place in range(bins):
        members.setdefault(place * levels // bins, []).append(place)
    rounded = np.zeros(bins)
    for places in members.values():
        used = [place for place in places if inside[place] > 0]
        for place in used:
            rounded[place] = sum(inside[p] for p in places) / len(used)
    share, other = reference / reference.sum(), rounded / max(rounded.sum(), 1e-300)
    if any(s > 0 and o <= 0 for s, o in zip(share, other, strict=True)):
        return math.inf
    return sum(s * math.log(s / o) for s, o in zip(share, other, strict=True) if s > 0)


def test_divergence_by_hand() -> None:
    # Two levels of two bins each: 3, 1 | 2, 2 becomes 2, 2 | 2, 2.
    counts = torch.tensor([3.0, 1.0, 2.0, 2.0], dtype=torch.float64)
    expected = 3 / 8 * math.log(3 / 2) + 1 / 8 * math.log(1 / 2)
    assert clipped_divergence(counts, 4, 2) == pytest.approx(expected)


@pytest.mark.parametrize("method", list(RangeMethod))
@pytest.mark.parametrize("value", [None, 0.0, 3.0, -2.0])
def test_constant_and_missing_values(method: RangeMethod, value: float | None) -> None:
    histogram = Histogram()
    histogram.add(torch.empty(0) if value is None else torch.full((50,), value))
    found = choose_range(histogram, method)
    wanted = value or 0.0
    assert (found.low, found.high) == pytest.approx((min(0.0, wanted), max(0.0, wanted)), rel=2e-2)


def test_an_outlier_is_cut_off_where_errors_count() -> None:
    values = torch.cat([torch.randn(200_000, generator=torch.Generator().manual_seed(0)), torch.tensor([20.0])])
    histogram = _filled(values)
    for method in (RangeMethod.PERCENTILE, RangeMethod.SQUARED_ERROR, RangeMethod.KL_DIVERGENCE):
        assert choose_range(histogram, method, levels=16).high < 10, method


def test_levels_hold_zero() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    low, high = torch.tensor([-0.37], dtype=torch.float64), torch.tensor([1.9], dtype=torch.float64)
    assert round_to_levels(zero, low, high, 16).equal(zero)
