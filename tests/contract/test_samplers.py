"""What every sampler must do, run on each of them."""

from collections.abc import Sequence

import pytest

from controller.job import SAMPLER_NAMES, Objective
from controller.proposer import Proposal, Proposer, Told
from controller.samplers import SAMPLERS, SamplerContext, make_sampler
from search_spaces.policy import Policy
from search_spaces.registry import RegistryError
from search_spaces.space import SearchSpace, SpaceConfig
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)


def proposer(name: str, space: SearchSpace, *, seed: int = 0, so_far: int = 0) -> Proposer:
    context = SamplerContext(seed=seed, space=space, cost_of=SimulatedCosts(space), objectives=OBJECTIVES)
    return Proposer(space, OBJECTIVES, make_sampler(name, context, trials_so_far=so_far))


def values(policy: Policy, space: SearchSpace) -> list[float]:
    costs = SimulatedCosts(space)(policy)
    return [simulated_quality(policy, SimulatedConfig(space=space)), costs.latency_ms, float(costs.size_bytes)]


def run(subject: Proposer, space: SearchSpace, count: int) -> list[Policy]:
    found = []
    for _ in range(count):
        proposal = subject.propose()
        found.append(proposal.policy)
        scores = values(proposal.policy, space)
        subject.tell(proposal, scores, {"max_latency_ms": scores[1] - 4.0})
    return found


def test_a_job_may_name_exactly_the_registered_samplers() -> None:
    assert set(SAMPLERS) == set(SAMPLER_NAMES)
    with pytest.raises(RegistryError, match="unknown sampler 'gp'; supported: nsga2, random, tpe"):
        proposer("gp", simulated_space())


@pytest.mark.parametrize("name", sorted(SAMPLERS))
class TestSampler:
    """The contract."""

    def test_it_proposes_policies_of_the_space(self, name: str) -> None:
        space = simulated_space(3)
        for policy in run(proposer(name, space), space, 40):
            space.validate(policy)
            assert space.from_parameters(space.to_parameters(policy)) == policy

    def test_the_seed_decides(self, name: str) -> None:
        space = simulated_space(3)
        first = run(proposer(name, space, seed=1), space, 30)
        assert run(proposer(name, space, seed=1), space, 30) == first
        assert run(proposer(name, space, seed=2), space, 30) != first

    def test_many_policies_can_be_pending_and_are_told_in_any_order(self, name: str) -> None:
        space = simulated_space(3)
        subject = proposer(name, space)
        run(subject, space, 12)
        pending = [subject.propose() for _ in range(8)]
        assert len({p.policy for p in pending}) > 1
        for proposal in reversed(pending):
            subject.tell(proposal, values(proposal.policy, space), {})
        run(subject, space, 5)

    def test_it_goes_on_after_a_failure(self, name: str) -> None:
        space = simulated_space(3)
        subject = proposer(name, space)
        for _ in range(15):
            subject.tell_failure(subject.propose())
        run(subject, space, 15)

    def test_it_starts_from_what_it_did_not_propose_itself(self, name: str) -> None:
        space = simulated_space(3, SpaceConfig(keep=(0.5, 0.25)))
        subject = proposer(name, space)
        outside = subject.adopt(space.dense_policy())
        assert outside.trial is None
        subject.tell(outside, values(outside.policy, space), {})
        for policy in space.uniform_policies().values():
            proposal = subject.adopt(policy)
            assert proposal.policy == policy
            subject.tell(proposal, values(policy, space), {})
        run(subject, space, 20)

    def test_after_a_rebuild_it_continues_and_does_not_repeat_itself(self, name: str) -> None:
        space = simulated_space(4)
        subject = proposer(name, space)
        told: list[Told] = []
        for _ in range(20):
            proposal = subject.propose()
            scores = values(proposal.policy, space)
            told.append(_told(subject, proposal, scores))
            subject.tell(proposal, scores, {"max_latency_ms": scores[1] - 4.0})
        again = []
        for _ in range(2):
            rebuilt = proposer(name, space, so_far=20)
            rebuilt.restore(told)
            again.append(run(rebuilt, space, 20))
        assert again[0] == again[1]
        assert again[0] != [t.policy for t in told]

    @pytest.mark.parametrize(
        "config",
        [
            SpaceConfig(keep=(1.0, 0.5), formats=("fp32",)),
            SpaceConfig(keep=(1.0,), formats=("fp32", "w8a8")),
            SpaceConfig(keep=(0.5,), formats=("w8a8",)),
        ],
    )
    @pytest.mark.parametrize("units", [1, 2])
    def test_it_works_in_the_smallest_spaces(self, name: str, config: SpaceConfig, units: int) -> None:
        space = simulated_space(units, config)
        found = run(proposer(name, space), space, 25)
        assert len(set(found)) <= space.size
        assert len(set(found)) >= min(space.size, 2)


def _told(subject: Proposer, proposal: Proposal, scores: Sequence[float]) -> Told:
    return Told(
        policy=proposal.policy,
        values=scores,
        violations={"max_latency_ms": scores[1] - 4.0},
        attributes=subject.attributes(proposal),
    )
