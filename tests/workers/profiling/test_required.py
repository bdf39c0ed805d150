import random

from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.workload import Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import ModelStructure
from workers.profiling.required import grid_operators, required_operators, working_set_bytes
from workers.profiling.sampling import ProfileBudget
from workers.profiling.session import ProfileSession

FORMATS = ("fp32", "w8a8", "w4", "w4g128")
WORKLOAD = Workload(batch=1, sequence_length=17)


def test_required_operators_are_those_of_all_policies(structure: ModelStructure) -> None:
    config = SpaceConfig(keep=(1.0, 0.5, 0.0), formats=("w8a8", "w4"))
    space = build_space(structure, config, target_formats=FORMATS, channel_multiple=8)
    generator = random.Random(0)
    policies = [space.random_policy(generator) for _ in range(200)]
    expected = {o for p in (*policies, space.dense_policy()) for o in operators(structure, p, WORKLOAD)}
    required = required_operators(space, WORKLOAD)
    assert set(required) == expected
    assert len(required) == len(expected)


def test_a_grid_brackets_every_width(structure: ModelStructure, steady_device) -> None:
    grid = grid_operators(structure, WORKLOAD, formats=FORMATS, channel_multiple=8, steps=4)
    session = ProfileSession(
        steady_device(),
        structure,
        reference=grid[0],
        target="t",
        out=None,
        budget=ProfileBudget(rounds=2, runs=1),
        generator=random.Random(0),
        progress=lambda done, total: None,
    )
    predictor = LatencyPredictor(session.measure(grid), WORKLOAD)
    for keep in range(1, 5):
        for width in range(8, 513, 8):
            for name in FORMATS:
                policy = Policy({"attention": Choice(keep, name), "feed_forward": Choice(width, name)})
                assert predictor.policy_ms(structure, policy) > 0


def test_the_working_set_is_the_weights_of_all_layers(structure: ModelStructure) -> None:
    weights = 4 * 64 * 64 + 2 * 64 * 512
    # Patches of 2 x 2 and a head for 10 classes lie outside units.
    outside = 4 * (64 * 2 * 2 + 64 * 10)
    assert working_set_bytes(structure, None) == 4 * weights + outside
    assert working_set_bytes(structure, "w8a8") == weights + 4 * (4 * 64 + 512 + 64) + outside
