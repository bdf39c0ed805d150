"""Which trials another target begins with, and which of them it scores again, on a simulated model."""

from dataclasses import replace
from typing import Any

import pytest

from controller.counting import evaluations_of
from controller.front import FrontMember, hypervolume, pareto_front
from controller.job import Constraints, Objective
from controller.retargeting.carry_over import ESTIMATE, carry_over, to_score_again
from controller.storage import TrialRecord, TrialRole, TrialState
from evaluators.scores import Costs
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace
from workers.simulated import SimulatedCosts, simulated_space

OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS)
SPACE = simulated_space(3)
UNITS = [space.unit for space in SPACE.unit_spaces]


def policy(keep: int, name: str = "w8a8", unit: int = 0) -> Policy:
    return SPACE.dense_policy().replace(**{UNITS[unit].name: Choice(keep, name)})


def trial(number: int, policy: Policy, **fields: Any) -> TrialRecord:
    base: dict[str, Any] = {
        "number": number,
        "role": TrialRole.TRIAL,
        "name": f"trial {number}",
        "policy": policy,
        "state": TrialState.COMPLETE,
        "metric": "accuracy",
        "quality": 0.8,
        "costs": Costs(latency_ms=1.0, size_bytes=10),
    }
    return TrialRecord(**{**base, **fields})


@pytest.fixture
def trials() -> list[TrialRecord]:
    """One of each sort; the third and the fourth say nothing of another target."""
    keeps = SPACE.unit_spaces[0].keeps
    return [
        trial(0, SPACE.dense_policy(), role=TrialRole.BASELINE, name="dense", quality=0.9),
        trial(1, policy(keeps[0]), role=TrialRole.BASELINE, name="keep 1, w8a8"),
        trial(2, policy(keeps[1]), state=TrialState.PRUNED, quality=None, violations={"max_latency_ms": 0.5}),
        trial(3, policy(keeps[0]), repeat_of=1),
        trial(4, policy(keeps[1]), role=TrialRole.PROBE, rung=0, share=0.1, sampler_attributes={"generation": 3}),
        trial(5, policy(keeps[2]), state=TrialState.PRUNED, share=0.25, quality=0.7),
        trial(6, policy(keeps[1], unit=1), state=TrialState.FAIL, quality=None, reason="error"),
        trial(7, policy(keeps[1], unit=2), state=TrialState.RUNNING, quality=None, attempt="a", attempts=1),
        trial(8, policy(keeps[2], unit=2), attempt="b", attempts=1),
    ]


def test_finished_trials_are_numbered_and_priced_anew(trials: list[TrialRecord]) -> None:
    costs = SimulatedCosts(SPACE)
    carried = carry_over(trials, SPACE, costs, same_calls=True)
    assert [t.number for t in carried.trials] == list(range(6))
    assert [t.name for t in carried.trials] == ["dense", "keep 1, w8a8", "probe 2", "trial 3", "trial 4", "trial 5"]
    assert [t.policy for t in carried.trials] == [trials[n].policy for n in (0, 1, 4, 5, 6, 8)]
    assert all(t.costs == costs(t.policy) for t in carried.trials)
    assert all((t.attempt, t.attempts) == (None, 0) for t in carried.trials)
    assert carried.trials[2].sampler_attributes == {"paretrim:rung": 0}
    assert (carried.estimates, carried.left_out) == (1, 0)
    assert evaluations_of(carried.trials, 64) == 2


def test_in_calls_of_another_size_only_the_dense_score_stays(trials: list[TrialRecord]) -> None:
    carried = carry_over(trials, SPACE, SimulatedCosts(SPACE), same_calls=False)
    states = {t.name: (t.state, t.message) for t in carried.trials}
    assert states["dense"] == (TrialState.COMPLETE, None)
    assert states["keep 1, w8a8"] == (TrialState.PRUNED, ESTIMATE)
    assert states["trial 5"] == (TrialState.PRUNED, ESTIMATE)
    assert states["probe 2"] == (TrialState.COMPLETE, None)
    assert states["trial 4"][0] is TrialState.FAIL
    assert carried.estimates == 3


def test_policies_without_kernels_are_left_out(trials: list[TrialRecord]) -> None:
    spaces = tuple(replace(space, formats=("fp32", "w4")) for space in SPACE.unit_spaces)
    other = SearchSpace(structure=SPACE.structure, unit_spaces=spaces)
    carried = carry_over(trials, other, SimulatedCosts(SPACE), same_calls=True)
    assert [t.name for t in carried.trials] == ["dense"]
    assert carried.left_out == 4


def naive_order(trials: list[TrialRecord]) -> list[Policy]:
    """What would be on the front by its estimate, by what the front loses without it."""
    members = [
        FrontMember(
            number=t.number,
            policy_digest=t.policy.digest,
            name="",
            quality=t.quality or 0.0,
            latency_ms=t.costs.latency_ms,
            size_bytes=t.costs.size_bytes,
        )
        for t in trials
    ]
    front = pareto_front(members, OBJECTIVES)
    estimated = {t.number for t in trials if t.stopped_early}
    gains = {
        m.number: hypervolume(front, OBJECTIVES, dense=members[0])
        - hypervolume([o for o in front if o is not m], OBJECTIVES, dense=members[0])
        for m in front
        if m.number in estimated
    }
    return [trials[number].policy for number in sorted(gains, key=lambda number: -gains[number])]


def test_the_most_valuable_estimates_are_scored_first() -> None:
    points = [(0.9, 1.0), (0.88, 0.7), (0.86, 0.69), (0.7, 0.3), (0.6, 0.5), (0.5, 0.1)]
    choices = [
        SPACE.dense_policy(),
        *(policy(k, name) for k in SPACE.unit_spaces[0].keeps[1:3] for name in ("w8a8", "w4")),
    ]
    choices.append(policy(SPACE.unit_spaces[0].keeps[1], unit=1))
    trials = [
        trial(
            number,
            choices[number],
            quality=quality,
            costs=Costs(latency_ms=latency, size_bytes=10),
            state=TrialState.PRUNED if number in (1, 2, 3, 4) else TrialState.COMPLETE,
            share=0.5 if number in (1, 2, 3, 4) else 1.0,
        )
        for number, (quality, latency) in enumerate(points)
    ]
    found = to_score_again(trials, OBJECTIVES, Constraints(), 0.0, most=10)
    assert found == naive_order(trials)
    assert len(found) == 3
    assert to_score_again(trials, OBJECTIVES, Constraints(), 0.0, most=1) == found[:1]
    assert to_score_again(trials, OBJECTIVES, Constraints(), 0.0, most=-2) == []
    bounded = to_score_again(trials, OBJECTIVES, Constraints(max_latency_ms=0.5), 0.0, most=10)
    assert bounded == [choices[3]]
    waiting = trial(6, found[0], state=TrialState.WAITING, quality=None)
    assert to_score_again([*trials, waiting], OBJECTIVES, Constraints(), 0.0, most=10) == found[1:]
