"""The Gaussian process takes trials that differ in their constraints and examples."""

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from controller.job import Constraints, Objective
from controller.proposer import Proposer
from controller.samplers import SamplerContext, make_sampler
from controller.samplers.gaussian_process import same_constraints
from workers.simulated import SimulatedCosts, simulated_space


def trial(constraints):
    return create_trial(
        values=[0.5], params={"x": 0}, distributions={"x": CategoricalDistribution([0, 1])}, constraints=constraints
    )


def test_a_constraint_that_a_trial_does_not_know_counts_as_just_met():
    first, second = trial({"max_latency_ms": 0.4}), trial({"max_quality_drop": 0.1, "max_latency_ms": -0.5})
    found = same_constraints([first, second])
    assert [t.constraints for t in found] == [
        {"max_latency_ms": 0.4, "max_quality_drop": 0.0},
        {"max_latency_ms": -0.5, "max_quality_drop": 0.1},
    ]
    assert [list(t.constraints) for t in found] == [["max_latency_ms", "max_quality_drop"]] * 2
    plain = trial({})
    assert same_constraints([plain]) == [plain]


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_it_goes_on_where_trials_know_different_constraints(share):
    space = simulated_space(2)
    objectives = (Objective.QUALITY, Objective.LATENCY_MS)
    context = SamplerContext(
        seed=0, space=space, cost_of=SimulatedCosts(space), objectives=objectives, constraints=Constraints()
    )
    subject = Proposer(space, objectives, make_sampler("gp", context, trials_so_far=0))
    for number in range(13):
        proposal = subject.propose()
        latency_ms = SimulatedCosts(space)(proposal.policy).latency_ms
        violations = {"max_latency_ms": latency_ms - 1.0}
        if latency_ms <= 1.0:
            violations = {"max_quality_drop": 0.01, **violations}
        subject.tell(proposal, [number / 20, latency_ms], violations, share=share if number % 3 == 0 else 1.0)
