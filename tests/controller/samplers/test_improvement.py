"""Expected gains in hypervolume against drawing qualities and measuring with moocore."""

import moocore
import numpy as np
import pytest

from controller.samplers.improvement import expected_excess, expected_improvement, improvement_by_levels

BEST = 1.02


def drawn_gain(cost: np.ndarray, mean: float, spread: float, costs: np.ndarray, quality: np.ndarray) -> float:
    """Mean gain over drawn qualities."""
    generator = np.random.default_rng(0)
    reference = np.append(np.ones(costs.shape[1]), 0.0)
    inside = (costs < 1).all(axis=1) & (quality > 0)
    points = np.column_stack([costs, -quality])[inside]
    before = moocore.hypervolume(points, ref=reference) if len(points) else 0.0
    gains = []
    for value in np.minimum(generator.normal(mean, spread, 4000), BEST):
        if value <= 0 or (cost >= 1).any():
            gains.append(0.0)
            continue
        gains.append(moocore.hypervolume(np.vstack([points, [*cost, -value]]), ref=reference) - before)
    return float(np.mean(gains))


@pytest.mark.parametrize("seed", range(4))
def test_one_cost(seed: int) -> None:
    generator = np.random.default_rng(seed)
    costs, quality = generator.random((8, 1)) * 1.1, generator.random(8)
    cost, mean, spread = generator.random(6), generator.random(6), generator.random(6) * 0.3
    mean = np.minimum(mean, BEST)
    found = expected_improvement(cost, mean, spread, costs[:, 0], quality, best=BEST)
    for number in range(6):
        expected = drawn_gain(cost[number : number + 1], mean[number], spread[number], costs, quality)
        assert found[number] == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("seed", range(3))
def test_two_costs(seed: int) -> None:
    generator = np.random.default_rng(seed)
    costs, quality = generator.random((6, 2)), generator.random(6)
    cost, mean, spread = generator.random((3, 2)), generator.random(3), generator.random(3) * 0.3
    found = improvement_by_levels(cost, mean, spread, costs, quality, best=BEST)
    for number in range(3):
        expected = drawn_gain(cost[number], mean[number], spread[number], costs, quality)
        assert found[number] == pytest.approx(expected, abs=0.006)


def test_both_ways_agree_for_one_cost() -> None:
    generator = np.random.default_rng(5)
    costs, quality = generator.random((10, 1)), generator.random(10)
    cost, mean, spread = generator.random((12, 1)), generator.random(12), generator.random(12) * 0.2
    one = expected_improvement(cost[:, 0], mean, spread, costs[:, 0], quality, best=BEST)
    several = improvement_by_levels(cost, mean, spread, costs, quality, best=BEST)
    assert several == pytest.approx(one, abs=1e-9)


def test_an_empty_front_gains_the_whole_box() -> None:
    none = np.zeros(0)
    found = expected_improvement(np.array([0.25, 2.0]), np.array([0.5, 0.5]), np.zeros(2), none, none, best=BEST)
    assert found == pytest.approx([0.75 * 0.5, 0.0])


def test_certain_quality_below_the_front_gains_nothing() -> None:
    found = expected_improvement(
        np.array([0.5]), np.array([0.4]), np.zeros(1), np.array([0.4]), np.array([0.5]), best=BEST
    )
    assert found == pytest.approx([0.0])


def test_the_expected_excess_of_a_normal() -> None:
    generator = np.random.default_rng(1)
    draws = generator.normal(0.3, 0.2, 400_000)
    found = expected_excess(np.array([0.3]), np.array([0.2]), np.array([0.45]))
    assert found[0] == pytest.approx(np.maximum(draws - 0.45, 0).mean(), rel=0.02)
