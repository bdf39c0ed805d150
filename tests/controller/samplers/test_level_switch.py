"""Level switches keep the cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.job import Constraints
from controller.samplers import SamplerContext
from controller.samplers.budget import CostBudget, CostTarget
from controller.samplers.level_switch import switch_levels
from search_spaces.space import SpaceConfig
from workers.simulated import SimulatedCosts, simulated_space

SPACE = simulated_space(12)
BUDGET = CostBudget(SamplerContext(seed=0, space=SPACE, cost_of=SimulatedCosts(SPACE)))


@given(seed=st.integers(0, 2**16), share=st.floats(0.1, 0.9))
@settings(max_examples=50, deadline=None)
def test_a_child_costs_what_its_parent_may_and_differs_in_few_units(seed, share):
    generator = np.random.default_rng(seed)
    low, high = BUDGET.range_of(0)
    target = CostTarget(axis=0, value=low + share * (high - low))
    parent = BUDGET.draw(target, generator)
    child = switch_levels(BUDGET, parent, target, generator)
    assert BUDGET.totals(child)[0] <= target.value * (1 + 1e-9)
    assert np.count_nonzero(child != parent) <= 3 + 3 + 4


def test_what_is_saved_is_spent_again():
    target = CostTarget(axis=0, value=float(np.mean(BUDGET.range_of(0))))
    generator = np.random.default_rng(0)
    parent = BUDGET.draw(target, generator)
    spent = [BUDGET.totals(switch_levels(BUDGET, parent, target, generator))[0] for _ in range(50)]
    assert np.mean(spent) > 0.95 * target.value


def test_the_other_cost_keeps_to_its_bound():
    context = SamplerContext(
        seed=0, space=SPACE, cost_of=SimulatedCosts(SPACE), constraints=Constraints(max_size_bytes=60_000)
    )
    budget, generator = CostBudget(context), np.random.default_rng(0)
    target = CostTarget(axis=0, value=3.0)
    parent = budget.draw(target, generator)
    for _ in range(50):
        parent = switch_levels(budget, parent, target, generator)
        assert budget.totals(parent)[1] <= 60_000


@pytest.mark.parametrize("units", [1, 2])
def test_it_works_with_one_unit_and_one_option(units):
    space = simulated_space(units, SpaceConfig(keep=(0.5,), formats=("w8a8",)))
    budget = CostBudget(SamplerContext(seed=0, space=space, cost_of=SimulatedCosts(space)))
    target = CostTarget(axis=0, value=budget.range_of(0)[1])
    options = np.zeros(units, dtype=np.int64)
    assert switch_levels(budget, options, target, np.random.default_rng(0)).tolist() == options.tolist()
