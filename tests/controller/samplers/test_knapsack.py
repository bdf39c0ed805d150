"""The multiple-choice knapsack against trying everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.samplers.knapsack import solve_front, weight_sweep


def tried(costs: list[np.ndarray], losses: list[np.ndarray]) -> list[tuple[float, float]]:
    """Every undominated pair of total cost and loss, by enumeration."""
    totals = {
        (
            round(sum(float(c[i]) for c, i in zip(costs, chosen, strict=True)), 6),
            round(sum(float(v[i]) for v, i in zip(losses, chosen, strict=True)), 6),
        )
        for chosen in itertools.product(*(range(len(c)) for c in costs))
    }
    return sorted(t for t in totals if not any(o != t and o[0] <= t[0] and o[1] <= t[1] for o in totals))


def sums(values: list[np.ndarray], options: np.ndarray) -> np.ndarray:
    return sum(v[options[:, unit]] for unit, v in enumerate(values))  # type: ignore[return-value]


units = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(units)
def test_the_front_is_that_of_all_combinations(drawn: list[list[tuple[int, int]]]) -> None:
    costs = [np.array([float(cost) for cost, _ in unit]) for unit in drawn]
    losses = [np.array([float(loss) for _, loss in unit]) for unit in drawn]
    options = solve_front(costs, losses)
    found = [(round(c, 6), round(v, 6)) for c, v in zip(sums(costs, options), sums(losses, options), strict=True)]
    assert found == tried(costs, losses)


def test_a_bound_on_states_costs_little() -> None:
    generator = np.random.default_rng(0)
    costs = [np.sort(generator.random(6))[::-1] for _ in range(40)]
    losses = [np.sort(generator.random(6)) for _ in range(40)]
    exact, thinned = solve_front(costs, losses, most_states=20_000), solve_front(costs, losses, most_states=512)
    assert len(thinned) <= 513
    cost, loss = sums(costs, thinned), sums(losses, thinned)
    slack = 40 * np.ptp(sums(costs, exact)) / 511
    for row_cost, row_loss in zip(sums(costs, exact), sums(losses, exact), strict=True):
        assert loss[cost <= row_cost + slack + 1e-9].min() <= row_loss + 1e-9
    assert sums(costs, thinned).min() == pytest.approx(sums(costs, exact).min())
    assert sums(losses, thinned).min() == pytest.approx(sums(losses, exact).min())


def test_four_hundred_parameters_take_a_moment() -> None:
    generator = np.random.default_rng(0)
    costs = [generator.random(13) for _ in range(200)]
    losses = [generator.random(13) for _ in range(200)]
    options = solve_front(costs, losses, most_states=1024)
    assert options.shape[1] == 200
    assert len(options) > 100


def test_weights_cover_every_cost_alone_and_between() -> None:
    assert weight_sweep(1).tolist() == [[1.0]]
    weights = weight_sweep(2, steps=3)
    assert np.allclose(weights.sum(axis=1), 1)
    assert {(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)} <= {tuple(map(float, row)) for row in weights}
