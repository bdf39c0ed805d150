"""What every sampler must do, run on each of them."""

import json
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from controller.job import Constraints, Objective
from controller.proposer import Proposal, Proposer, Told
from controller.sampler_names import BUILT_IN
from controller.samplers import SAMPLERS, SamplerContext, make_sampler
from evaluators.rungs import rung_share
from search_spaces.policy import Policy
from search_spaces.registry import RegistryError
from search_spaces.space import SearchSpace, SpaceConfig
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)
OWN = tuple(sorted({"evolution", "frontier", "reinforce"} & set(SAMPLERS)))
"""They know costs beforehand, and promise to propose no policy for the front that its costs alone rule out."""
SLOW = {"gp"}
"""Their time grows with the trials so fast that they get few."""

QualityOf = Callable[[Policy, SearchSpace], float]


def proposer(
    name: str, space: SearchSpace, *, seed: int = 0, so_far: int = 0, constraints: Constraints | None = None
) -> Proposer:
    context = SamplerContext(
        seed=seed,
        space=space,
        cost_of=SimulatedCosts(space),
        objectives=OBJECTIVES,
        constraints=constraints or Constraints(),
    )
    return Proposer(space, OBJECTIVES, make_sampler(name, context, trials_so_far=so_far))


def quality_of(policy: Policy, space: SearchSpace) -> float:
    return simulated_quality(policy, SimulatedConfig(space=space))


@dataclass(frozen=True)
class Result:
    values: list[float]
    share: float

    @property
    def violations(self) -> dict[str, float]:
        return {"max_latency_ms": self.values[1] - 4.0}


def score(proposal: Proposal, space: SearchSpace, quality: QualityOf = quality_of) -> Result:
    """Score a policy on what the sampler wants it scored on: the fewer examples, the less exact."""
    costs, share = SimulatedCosts(space)(proposal.policy), 1.0
    value = quality(proposal.policy, space)
    if proposal.rung is not None:
        share = rung_share(proposal.rung)
        value += random.Random(f"{proposal.policy.digest}:{share}").gauss(0, 0.02 * math.sqrt(1 / share - 1))
    return Result([value, costs.latency_ms, float(costs.size_bytes)], share)


def tell(subject: Proposer, proposal: Proposal, result: Result) -> None:
    subject.tell(proposal, result.values, result.violations, share=result.share)


def run(subject: Proposer, space: SearchSpace, count: int, quality: QualityOf = quality_of) -> list[Policy]:
    found = []
    for _ in range(count):
        proposal = subject.propose()
        found.append(proposal.policy)
        tell(subject, proposal, score(proposal, space, quality))
    return found


def enough(name: str, count: int) -> int:
    return min(count, 13) if name in SLOW else count


def test_a_job_may_name_exactly_the_registered_samplers() -> None:
    assert tuple(SAMPLERS) == BUILT_IN
    with pytest.raises(RegistryError, match=r"unknown sampler 'cmaes'; supported: evolution.*gp, nsga2, nsga3, random"):
        proposer("cmaes", simulated_space())


@pytest.mark.parametrize("name", sorted(SAMPLERS))
class TestSampler:
    """The contract."""

    def test_it_proposes_policies_of_the_space(self, name: str) -> None:
        space = simulated_space(3)
        for policy in run(proposer(name, space), space, enough(name, 60)):
            space.validate(policy)
            assert space.from_parameters(space.to_parameters(policy)) == policy

    def test_the_seed_decides(self, name: str) -> None:
        space, count = simulated_space(3), enough(name, 45)
        first = run(proposer(name, space, seed=1), space, count)
        assert run(proposer(name, space, seed=1), space, count) == first
        assert run(proposer(name, space, seed=2), space, count) != first

    def test_many_policies_can_be_pending_and_are_told_in_any_order(self, name: str) -> None:
        space = simulated_space(3)
        subject = proposer(name, space)
        run(subject, space, 12)
        pending = [subject.propose() for _ in range(enough(name, 40) // 3)]
        assert len({p.policy for p in pending}) > 1
        for proposal in reversed(pending):
            tell(subject, proposal, score(proposal, space))
        run(subject, space, 2 if name in SLOW else 20)

    def test_it_goes_on_after_a_failure(self, name: str) -> None:
        space = simulated_space(3)
        subject = proposer(name, space)
        for _ in range(15):
            subject.tell_failure(subject.propose())
        run(subject, space, enough(name, 15))

    def test_it_scores_policies_in_full_where_probes_fail(self, name: str) -> None:
        space = simulated_space(3)
        subject = proposer(name, space)
        whole = 0
        for _ in range(enough(name, 80)):
            proposal = subject.propose()
            whole += proposal.rung is None
            if proposal.rung is not None:
                subject.tell_failure(proposal)
            else:
                tell(subject, proposal, score(proposal, space))
        assert whole >= 3

    def test_it_starts_from_what_it_did_not_propose_itself(self, name: str) -> None:
        space = simulated_space(3, SpaceConfig(keep=(0.5, 0.25)))
        subject = proposer(name, space)
        outside = subject.adopt(space.dense_policy())
        assert outside.trial is None
        tell(subject, outside, score(outside, space))
        for policy in space.uniform_policies().values():
            proposal = subject.adopt(policy)
            assert proposal.policy == policy
            tell(subject, proposal, score(proposal, space))
        run(subject, space, enough(name, 20))

    def test_after_a_rebuild_it_continues_and_does_not_repeat_itself(self, name: str) -> None:
        space, count = simulated_space(4), enough(name, 40)
        subject = proposer(name, space)
        told: list[Told] = []
        for _ in range(count):
            proposal = subject.propose()
            result = score(proposal, space)
            told.append(_told(subject, proposal, result))
            tell(subject, proposal, result)
        again = []
        for _ in range(2):
            rebuilt = proposer(name, space, so_far=count)
            rebuilt.restore(told)
            again.append(run(rebuilt, space, 3 if name in SLOW else 20))
        assert again[0] == again[1]
        assert again[0] != [t.policy for t in told[: len(again[0])]]

    def test_what_it_notes_is_small_and_plain(self, name: str) -> None:
        space = simulated_space(3)
        subject = proposer(name, space)
        for _ in range(12):
            proposal = subject.propose()
            noted = json.dumps(subject.attributes(proposal))
            assert len(noted) < 512
            tell(subject, proposal, score(proposal, space))

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
        found = run(proposer(name, space), space, 12 if name in SLOW else 40)
        assert len(set(found)) <= space.size
        assert len(set(found)) >= min(space.size, 2)

    @pytest.mark.parametrize(
        "quality", [lambda policy, space: 0.5, lambda policy, space: 0.9 - quality_of(policy, space)]
    )
    def test_it_goes_on_where_quality_is_constant_or_better_for_less(self, name: str, quality: QualityOf) -> None:
        space = simulated_space(4)
        found = run(proposer(name, space), space, enough(name, 60), quality)
        assert len(set(found)) > 5

    def test_where_no_policy_is_feasible_it_proposes_all_the_same(self, name: str) -> None:
        space = simulated_space(3)
        run(proposer(name, space, constraints=Constraints(max_latency_ms=0.1, max_size_bytes=10)), space, 8)

    def test_it_proposes_quickly_in_large_spaces(self, name: str) -> None:
        space = simulated_space(100)
        assert len(space.parameters()) == 200
        subject = proposer(name, space)
        seconds = []
        for _ in range(9 if name in SLOW else 24):
            start = time.perf_counter()
            proposal = subject.propose()
            seconds.append(time.perf_counter() - start)
            tell(subject, proposal, score(proposal, space))
        assert statistics.median(seconds) < 1.0

    def test_two_thousand_units_are_no_obstacle(self, name: str) -> None:
        space = simulated_space(2000, SpaceConfig(keep=(1.0, 0.5), formats=("fp32", "w8a8")))
        start = time.perf_counter()
        run(proposer(name, space), space, 3)
        assert time.perf_counter() - start < 60


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(max_latency_ms=1.2),
        Constraints(max_size_bytes=40_000),
        Constraints(max_latency_ms=1.5, max_size_bytes=30_000),
        Constraints(max_energy_mj=1.0),
        Constraints(max_latency_ms=1.5, max_energy_mj=1.0, max_peak_memory_bytes=420),
    ],
)
def test_bounds_on_costs_are_kept_by_construction(name: str, constraints: Constraints) -> None:
    space = simulated_space(6)
    subject, costs_of = proposer(name, space, constraints=constraints), SimulatedCosts(space)
    whole = 0
    for _ in range(100):
        proposal = subject.propose()
        tell(subject, proposal, score(proposal, space))
        # A probe is there to learn from, not to be picked.
        if proposal.rung is None:
            whole += 1
            costs = costs_of(proposal.policy)
            assert costs.latency_ms <= (constraints.max_latency_ms or math.inf)
            assert costs.size_bytes <= (constraints.max_size_bytes or math.inf)
            assert (costs.energy_mj or 0) <= (constraints.max_energy_mj or math.inf)
            assert (costs.peak_memory_bytes or 0) <= (constraints.max_peak_memory_bytes or math.inf)
    assert whole >= 4


def _told(subject: Proposer, proposal: Proposal, result: Result) -> Told:
    return Told(
        policy=proposal.policy,
        values=result.values,
        violations=result.violations,
        attributes=subject.attributes(proposal),
        share=result.share,
    )
