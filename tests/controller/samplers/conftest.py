"""A search on the simulated space, with every cost counted in full evaluations."""

import random
from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler

from controller.front import FrontMember, hypervolume
from controller.job import Objective
from controller.proposer import Proposer
from controller.samplers import SamplerContext
from evaluators.rungs import rung_share
from search_spaces.policy import Policy
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS)


def _search(
    make: Callable[[SamplerContext], BaseSampler], *, seed: int, evaluations: float, units: int = 12, rungs: bool = True
) -> float:
    space = simulated_space(units)
    costs_of, config = SimulatedCosts(space), SimulatedConfig(space=space, seed=seed)

    def member(number: int, policy: Policy) -> FrontMember:
        costs = costs_of(policy)
        return FrontMember(
            number=number,
            policy_digest=policy.digest,
            name=str(number),
            quality=simulated_quality(policy, config),
            latency_ms=costs.latency_ms,
            size_bytes=costs.size_bytes,
        )

    context = SamplerContext(seed=seed, space=space, cost_of=costs_of, objectives=OBJECTIVES)
    proposer = Proposer(space, OBJECTIVES, make(context))
    members, spent = [], 0.0
    while spent < evaluations - 1e-9:
        proposal = proposer.propose()
        found = member(len(members), proposal.policy)
        share = rung_share(proposal.rung) if rungs and proposal.rung is not None else 1.0
        quality = found.quality
        if share < 1:
            noise = random.Random(f"{found.policy_digest}:{share}").gauss(0, 0.0125 * (1 / share - 1) ** 0.5)
            quality = min(1.0, max(0.0, quality + noise))
        else:
            members.append(found)
        proposer.tell(proposal, [quality, found.latency_ms], {}, share=share)
        spent += share
    return hypervolume(members, OBJECTIVES, dense=member(-1, space.dense_policy()))


@pytest.fixture(scope="session")
def hypervolume_after() -> Callable[..., float]:
    """Hypervolume that a sampler reaches for so many full evaluations; those on few examples count by their share."""
    return _search
