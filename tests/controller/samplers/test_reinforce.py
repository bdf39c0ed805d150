"""The policy-gradient controller: better than chance, the same after a restart, and at home in any Optuna study."""

import numpy as np
import optuna
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase

from controller.job import Constraints, Objective
from controller.proposer import Proposer, Told
from controller.samplers import SamplerContext
from controller.samplers.budget import CostBudget, CostTarget
from controller.samplers.episode import MOVING_FEATURES, Walk, unit_features
from controller.samplers.policy_network import PolicyNetwork
from controller.samplers.registry import make_random
from controller.samplers.reinforce import NOTE, make_reinforce
from search_spaces.units import UnitKind
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

SPACE = simulated_space(6)
OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS)


def context(seed=0, **bounds):
    return SamplerContext(
        seed=seed,
        space=SPACE,
        cost_of=SimulatedCosts(SPACE),
        objectives=OBJECTIVES,
        constraints=Constraints(**bounds),
    )


def values(policy):
    return [simulated_quality(policy, SimulatedConfig(space=SPACE)), SimulatedCosts(SPACE)(policy).latency_ms]


def step(subject):
    proposal = subject.propose()
    told = Told(
        policy=proposal.policy,
        values=values(proposal.policy),
        violations={},
        attributes=subject.attributes(proposal),
    )
    subject.tell(proposal, told.values, {})
    return told


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_random_search_at_equal_cost(hypervolume_after, seed):
    chance = hypervolume_after(make_random, seed=seed, evaluations=400)
    assert hypervolume_after(make_reinforce, seed=seed, evaluations=400) > chance + 0.02


def test_it_learns_what_an_untrained_walk_does_not_know(hypervolume_after, monkeypatch):
    learned = hypervolume_after(make_reinforce, seed=0, evaluations=300)
    monkeypatch.setattr(PolicyNetwork, "learn", lambda self, batch: None)
    assert learned > hypervolume_after(make_reinforce, seed=0, evaluations=300) + 0.01


def test_a_rebuilt_study_has_learned_the_same():
    subject = Proposer(SPACE, OBJECTIVES, make_reinforce(context()))
    told = [step(subject) for _ in range(45)]
    rebuilt = Proposer(SPACE, OBJECTIVES, make_reinforce(context()))
    rebuilt.restore(told)
    assert [step(rebuilt).policy for _ in range(20)] == [step(subject).policy for _ in range(20)]


def test_the_first_weights_survive_another_seed():
    subject = Proposer(SPACE, OBJECTIVES, make_reinforce(context(seed=1)))
    told = [step(subject) for _ in range(10)]
    rebuilt = Proposer(SPACE, OBJECTIVES, make_reinforce(context(seed=2)))
    rebuilt.restore(told)
    assert {step(rebuilt).attributes[NOTE][0] for _ in range(3)} == {1}


def test_targets_are_spread_over_the_front():
    subject = Proposer(SPACE, OBJECTIVES, make_reinforce(context()))
    told = [step(subject) for _ in range(48)]
    indices = [t.attributes[NOTE][1] for t in told]
    assert sorted(indices[:24]) == list(range(24))
    latencies = np.array([t.values[1] for t in told])
    assert np.corrcoef(indices, latencies)[0, 1] > 0.9


@pytest.mark.parametrize("axis", [0, 1])
def test_a_walk_keeps_to_its_target_and_is_retraced_as_it_was(axis):
    budget = CostBudget(context())
    low, high = budget.range_of(axis)
    network = PolicyNetwork(
        units=6, fixed=unit_features(SPACE).shape[1], moving=MOVING_FEATURES, actions=budget.grid.width, seed=0
    )
    generator = np.random.default_rng(0)
    for share in (0.0, 0.2, 0.6, 1.0):
        target = CostTarget(axis=axis, value=low + share * (high - low))
        walk = Walk(budget, target)
        for _ in range(20):
            options = walk.sample(network, unit_features(SPACE), generator)
            assert budget.totals(options)[axis] <= target.value * (1 + 1e-9)
            trace = walk.retrace(options)
            assert np.isfinite(trace.prior_UC[np.arange(6), options]).all()
            spent = np.zeros(2)
            last = 0.0
            for unit in range(6):
                np.testing.assert_array_equal(trace.prior_UC[unit], walk._open(unit, spent))
                np.testing.assert_allclose(trace.moving_UD[unit], walk._moving(unit, spent, last), atol=1e-12)
                spent = spent + budget.costs_UCA[unit, options[unit]]
                last = budget.costs_UCA[unit, options[unit], axis]


def test_units_are_described_by_kind_position_and_width():
    features = unit_features(SPACE)
    kinds = list(UnitKind)
    assert features.shape == (6, len(kinds) + 3)
    assert features[:, kinds.index(UnitKind.FEED_FORWARD)].tolist() == [1.0] * 6
    np.testing.assert_allclose(features[:, len(kinds)], np.linspace(0, 1, 6))
    assert features.min() >= 0
    assert features.max() <= 1


def test_it_turns_away_from_what_breaks_a_constraint():
    def broken(broken_when):
        subject = Proposer(SPACE, OBJECTIVES, make_reinforce(context()))
        counts = []
        for _ in range(300):
            proposal = subject.propose()
            scores = values(proposal.policy)
            is_broken = broken_when(proposal.policy)
            counts.append(is_broken)
            subject.tell(proposal, scores, {"max_quality_drop": 1.0 if is_broken else -1.0})
        return np.mean(counts[:60]), np.mean(counts[-60:])

    first, last = broken(lambda policy: policy["layer.0.feed_forward"].format == "w4")
    assert last < first / 2


def test_in_a_plain_study_it_proposes_policies_of_the_space():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_reinforce(context()))

    def objective(trial):
        parameters = {name: trial.suggest_categorical(name, options) for name, options in SPACE.parameters().items()}
        return values(SPACE.from_parameters(parameters))

    study.optimize(objective, n_trials=40)
    assert len(study.best_trials) > 5


class TestInOptuna(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: make_reinforce(context())
