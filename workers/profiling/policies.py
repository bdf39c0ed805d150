"""Policies spread over a space, from the slowest to the fastest: what a correction is fitted on, or tried on."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

from evaluators.latency.design import shares_of_time, surest
from evaluators.latency.fitting import formats_of, terms_of
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.workload import operators
from search_spaces.formats import FORMATS, LayerType
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, UnitSpace

CANDIDATES = 100
"""Mixed policies that the models of a correction are chosen from."""
MUTATIONS = 1000
"""Changes that a random policy is moved towards its latency by, at most."""
CLOSE = 0.01
"""Relative distance from a latency that is near enough."""


def spread_policies(space: SearchSpace, predictor: LatencyPredictor, count: int, *, seed: int) -> dict[str, Policy]:
    """Return different policies of a space with a name each, such that a correction fitted on them is surest.

    Dense and smallest are among them, first; the others come from mixed ones over the range between, and the whole
    model in each format; see `evaluators.latency.design`.

    Args:
        space: Where they come from; the dense one may lie outside.
        predictor: Knows latencies, without correction.
        count: How many, 2 or more; fewer come back where the space has no more.
        seed: Seed of the mixed ones.
    """
    ends = _distinct({"dense": space.dense_policy(), "smallest": space.smallest_policy()})
    mixed = mixed_policies(space, predictor, CANDIDATES, seed=seed)
    candidates = _distinct(
        {**ends, **_whole(space), **{f"mixed {number}": policy for number, policy in enumerate(mixed, 1)}}
    )
    works = [
        predictor.work_by_operator(operators(space.structure, policy, predictor.workload))
        for policy in candidates.values()
    ]
    formats = formats_of(works)
    features_PC = shares_of_time(np.stack([terms_of(work, formats) for work in works]))
    members = surest(features_PC, count, kept=range(len(ends)))
    named = list(candidates.items())
    return dict(named[member] for member in members)


def mixed_policies(
    space: SearchSpace, predictor: LatencyPredictor, count: int, *, seed: int, uniform: bool = False
) -> tuple[Policy, ...]:
    """Return random policies whose latencies cover the range from dense to smallest.

    Args:
        space: Where they come from.
        predictor: Knows latencies.
        count: How many.
        seed: Seed of latencies and policies.
        uniform: Draw latencies uniformly; else they are the middles of equal parts of the range.
    """
    generator = random.Random(seed)
    slowest_ms, fastest_ms = (
        predictor.policy_ms(space.structure, policy) for policy in (space.dense_policy(), space.smallest_policy())
    )
    shares = [generator.random() if uniform else (number + 0.5) / count for number in range(count)]
    targets_ms = [fastest_ms + share * (slowest_ms - fastest_ms) for share in shares]
    return tuple(_towards(space, predictor, target_ms, generator) for target_ms in targets_ms)


def _towards(space: SearchSpace, predictor: LatencyPredictor, target_ms: float, generator: random.Random) -> Policy:
    """A random policy, changed unit by unit until its latency is near a given one."""

    def distance(policy: Policy) -> float:
        return abs(predictor.policy_ms(space.structure, policy) - target_ms)

    policy = space.random_policy(generator)
    best = distance(policy)
    for _ in range(MUTATIONS):
        if best <= CLOSE * target_ms:
            break
        name = generator.choice(space.unit_spaces).unit.name
        changed = policy.replace(**{name: generator.choice(space.choices(name))})
        if (found := distance(changed)) <= best:
            policy, best = changed, found
    return policy


def _whole(space: SearchSpace) -> dict[str, Policy]:
    """Every unit at its widest in one format, where the unit offers the format; by rising bits."""
    formats = {name for s in space.unit_spaces for name in s.formats if s.unit.layer_type is not LayerType.EMBEDDING}
    names = sorted(formats - {space.base_format}, key=lambda name: (-FORMATS.get(name).weight_bits, name))
    return {
        f"whole {name}": Policy({s.unit.name: _in_format(s, name, space.base_format) for s in space.unit_spaces})
        for name in names
    }


def _in_format(space: UnitSpace, name: str, base_format: str) -> Choice:
    """A unit at its widest in a format, or in its first one where it lacks that."""
    keep = space.keeps[0]
    if keep == 0:
        return Choice(0, base_format)
    return Choice(keep, name if name in space.formats else space.formats[0])


def _distinct(named: Mapping[str, Policy]) -> dict[str, Policy]:
    first: dict[Policy, str] = {}
    for name, policy in named.items():
        first.setdefault(policy, name)
    return {name: policy for policy, name in first.items()}
