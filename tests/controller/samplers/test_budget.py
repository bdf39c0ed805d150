"""Costs of options: sums, draws near a target, and bounds that hold."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.job import Constraints, Objective
from controller.samplers import SamplerContext
from controller.samplers.budget import CostBudget, CostTarget
from evaluators.scores import Costs
from search_spaces.policy import Policy
from search_spaces.space import Override, SearchSpace, SpaceConfig
from workers.simulated import SimulatedCosts, simulated_space

SPACE = simulated_space(4)


class CoupledCosts:
    """Units that follow each other cost more together: sums over units are wrong."""

    def __init__(self, space: SearchSpace) -> None:
        self._additive = SimulatedCosts(space)

    def __call__(self, policy: Policy) -> Costs:
        costs = self._additive(policy)
        keeps = [choice.keep for choice in policy.choices.values()]
        coupled = sum(math.sqrt(left * right) for left, right in itertools.pairwise(keeps))
        return Costs(latency_ms=costs.latency_ms + coupled / 50, size_bytes=costs.size_bytes + int(100 * coupled))


def context_of(space=SPACE, cost_of=None, objectives=(Objective.QUALITY, Objective.LATENCY_MS), **bounds):
    return SamplerContext(
        seed=0,
        space=space,
        cost_of=cost_of or SimulatedCosts(space),
        objectives=objectives,
        constraints=Constraints(**bounds),
    )


def test_sums_are_the_exact_costs_on_both_axes_whatever_the_objectives():
    budget = CostBudget(context_of())
    generator = np.random.default_rng(0)
    for _ in range(20):
        options = generator.integers(budget.grid.counts)
        policy = SPACE.from_parameters(budget.grid.parameters(options))
        costs = SimulatedCosts(SPACE)(policy)
        np.testing.assert_allclose(budget.totals(options), [costs.latency_ms, costs.size_bytes], rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_ranks_go_from_the_cheapest_option_on(axis):
    budget = CostBudget(context_of(space=simulated_space(2, SpaceConfig(keep=(1.0, 0.5), formats=("fp32", "w8a8")))))
    for unit in range(2):
        costs = budget.costs_UCA[unit, budget.by_rank_AUC[axis, unit], axis]
        assert list(costs) == sorted(costs)
        assert list(budget.ranks_AUC[axis, unit, budget.by_rank_AUC[axis, unit]]) == [0, 1, 2, 3]


def test_targets_lie_between_the_cheapest_and_the_dense_policy_or_the_bound():
    budget = CostBudget(context_of())
    cheapest = SimulatedCosts(SPACE)(SPACE.smallest_policy()).latency_ms
    dense = SimulatedCosts(SPACE)(SPACE.dense_policy()).latency_ms
    targets = budget.targets(context_of(), 10)
    assert [target.axis for target in targets] == [0] * 10
    values = [target.value for target in targets]
    assert values == sorted(values)
    assert cheapest < values[0]
    assert values[-1] == pytest.approx(dense)
    bounded = context_of(max_latency_ms=1.0, objectives=(Objective.QUALITY, Objective.SIZE_BYTES, Objective.LATENCY_MS))
    found = CostBudget(bounded).targets(bounded, 10)
    assert [target.axis for target in found] == [0] * 5 + [1] * 5
    assert found[4].value == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_tilt_spends_the_target_on_average(share):
    budget = CostBudget(context_of())
    low, high = budget.range_of(0)
    target = CostTarget(axis=0, value=low + share * (high - low))
    weights = np.exp(budget.tilt(target))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = budget.grid.base[0] + (weights * budget.costs_UCA[..., 0]).sum()
    assert expected == pytest.approx(target.value, rel=1e-6)
    # Of all distributions with that cost it is the widest: log-weights are linear in cost.
    logits, costs = np.log(weights[0]), budget.costs_UCA[0, :, 0]
    slope, offset = np.polyfit(costs, logits, 1)
    np.testing.assert_allclose(logits, slope * costs + offset, atol=1e-6)


@given(seed=st.integers(0, 2**16), share=st.floats(0.0, 1.0), axis=st.integers(0, 1))
@settings(max_examples=50, deadline=None)
def test_draws_keep_to_the_target(seed, share, axis):
    budget = CostBudget(context_of())
    low, high = budget.range_of(axis)
    target = CostTarget(axis=axis, value=low + share * (high - low))
    options = budget.draw(target, np.random.default_rng(seed))
    assert budget.totals(options)[axis] <= target.value * (1 + 1e-9)


@given(seed=st.integers(0, 2**16), latency_ms=st.floats(1.0, 4.5), size_bytes=st.integers(18_000, 150_000))
@settings(max_examples=50, deadline=None)
def test_exact_costs_keep_to_bounds_where_units_share_layers(seed, latency_ms, size_bytes):
    budget = CostBudget(context_of(cost_of=CoupledCosts(SPACE), max_latency_ms=latency_ms, max_size_bytes=size_bytes))
    assert not budget.grid.is_additive
    generator = np.random.default_rng(seed)
    options = budget.settle(generator.integers(budget.grid.counts), budget.bounds_A, generator)
    exact = CoupledCosts(SPACE)(SPACE.from_parameters(budget.grid.parameters(options)))
    assert exact.latency_ms <= latency_ms
    assert exact.size_bytes <= size_bytes


def test_a_policy_within_the_caps_is_left_as_it_is():
    budget = CostBudget(context_of())
    options = np.array([3, 0, 5, 1])
    settled = budget.settle(options, budget.totals(options), np.random.default_rng(0))
    assert settled.tolist() == options.tolist()


def test_the_frugal_policy_stays_below_both_bounds_where_the_cheapest_of_one_does_not():
    # Units are alike, so every weighting of the costs treats them alike; only half of them whole meets both bounds.
    class Opposed:
        def __call__(self, policy: Policy) -> Costs:
            kept = sum(choice.keep for choice in policy.choices.values())
            return Costs(latency_ms=1.0 + kept, size_bytes=1000 - 10 * kept)

    budget = CostBudget(context_of(cost_of=Opposed(), max_latency_ms=17.5, max_size_bytes=860))
    assert (budget.totals(budget.frugal) <= budget.bounds_A).all()
    options = budget.settle(np.zeros(4, dtype=np.int64), budget.bounds_A, np.random.default_rng(0))
    assert (budget.totals(options) <= budget.bounds_A).all()


@pytest.mark.parametrize(
    "bounds", [{"max_latency_ms": 2.0}, {"max_size_bytes": 60_000}, {"max_latency_ms": 1e3, "max_size_bytes": 10**9}]
)
def test_units_may_differ_in_how_many_options_they_have(bounds):
    override = (Override(units="layer.1.*", keep=(0.5,)), Override(units="layer.2.*", keep=(1.0,), formats=("w8a8",)))
    space = simulated_space(4, SpaceConfig(override=override))
    budget = CostBudget(context_of(space=space, **bounds))
    assert sorted(budget.grid.counts.tolist()) == [1, 3, 13, 13]
    assert (budget.frugal < budget.grid.counts).all()
    generator = np.random.default_rng(0)
    low, high = budget.range_of(0)
    for share in np.linspace(0, 1, 20):
        options = budget.draw(CostTarget(axis=0, value=low + share * (high - low)), generator)
        assert (options < budget.grid.counts).all()
        assert (budget.totals(options) <= budget.bounds_A).all()
