import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.additive import CHUNK, AdditiveCosts


@settings(max_examples=30)
@given(
    units=st.integers(1, 6),
    width=st.integers(1, 5),
    costs=st.integers(1, 3),
    rows=st.sampled_from([0, 1, CHUNK, CHUNK + 1]),
    seed=st.integers(0, 99),
)
def test_additive_costs_are_the_naive_sum(units, width, costs, rows, seed):
    generator = np.random.default_rng(seed)
    base, increments = generator.normal(size=costs), generator.normal(size=(units, width, costs))
    options = generator.integers(0, width, (rows, units))
    naive = np.array([base + sum(increments[u, o] for u, o in enumerate(point)) for point in options[-5:]])
    found = AdditiveCosts(base, increments).of(options)
    assert found.shape == (rows, costs)
    assert found[-5:] == pytest.approx(naive.reshape(-1, costs))


def test_points_may_have_any_leading_shape():
    costs = AdditiveCosts(np.array([1.0]), np.array([[[0.0], [2.0]], [[0.0], [np.nan]]]))
    assert costs.of(np.array([1, 0])).tolist() == [3.0]
    assert costs.of(np.zeros((2, 3, 2), dtype=np.int64)).shape == (2, 3, 1)
    assert np.isnan(costs.of(np.array([0, 1]))).all()
    with pytest.raises(IndexError, match="position from 0 to 1; got 0 to 2"):
        costs.of(np.array([0, 2]))
