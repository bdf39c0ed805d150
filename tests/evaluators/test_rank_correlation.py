"""Spearman's correlation and its pseudo-values, against scipy and a loop that leaves out one after the other."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from evaluators.confidence import bootstrap_interval
from evaluators.rank_correlation import spearman, spearman_by_example


def lists(count: int, *, ties: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(count, generator=generator)
    second = first + torch.randn(count, generator=generator)
    return (first.round(), second.round()) if ties else (first, second)


def left_out(first: torch.Tensor, second: torch.Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = float(spearmanr(first, second).statistic)
    return 0.0 if math.isnan(found) else found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [3, 8, 61])
def test_is_what_scipy_gives(count: int, ties: bool) -> None:
    first, second = lists(count, ties=ties)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [3, 9, 40])
def test_pseudo_values_are_those_of_the_jackknife(count: int, ties: bool) -> None:
    first, second = lists(count, ties=ties, seed=1)
    without = np.array([left_out(first[rest], second[rest]) for rest in ~np.eye(count, dtype=bool)])
    expected = spearman(first, second) + (count - 1) * (without.mean() - without)
    found = spearman_by_example(first, second)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)
    assert found.mean().item() == pytest.approx(spearman(first, second), abs=1e-12)


def test_intervals_of_pseudo_values_are_as_wide_as_those_of_drawing_the_examples_again() -> None:
    first, second = lists(300, ties=False, seed=2)
    low, high = bootstrap_interval(spearman_by_example(first, second).tolist())
    generator = np.random.default_rng(0)
    drawn = [generator.integers(300, size=300) for _ in range(1000)]
    again = np.quantile([spearmanr(first[rows], second[rows]).statistic for rows in drawn], [0.025, 0.975])
    assert high - low == pytest.approx(again[1] - again[0], rel=0.15)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_is_constant_has_no_order(count: int) -> None:
    constant, other = torch.ones(count), torch.arange(float(count))
    assert spearman(constant, other) == 0
    assert spearman_by_example(constant, other).tolist() == [0.0] * count


def test_a_broken_number_breaks_all() -> None:
    first, second = lists(8, ties=False)
    first[3] = float("nan")
    assert math.isnan(spearman(first, second))
    assert spearman_by_example(first, second).isnan().all()


def test_many_examples_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = lists(40, ties=True)
    whole = spearman_by_example(first, second)
    monkeypatch.setattr("evaluators.rank_correlation._CHUNK_ELEMENTS", 100)
    torch.testing.assert_close(spearman_by_example(first, second), whole)
