import random

import numpy as np
import pytest

from evaluators.latency.workload import Operator, OperatorKind
from workers.profiling.sampling import ProfileBudget, Reference, Samples, median_error, sample_rounds

OPERATORS = {Operator.of(OperatorKind.LAYER_NORM, tokens=4, features=8 * n): 10 * n for n in range(1, 6)}
REFERENCE = Operator.of(OperatorKind.LAYER_NORM, tokens=4, features=1000)


def sample(device, **budget: float) -> Samples:
    return sample_rounds(
        OPERATORS,
        Reference(REFERENCE, 7),
        device,
        ProfileBudget(**{"rounds": 3, "max_rounds": 9, "runs": 4, **budget}),
        random.Random(0),
        progress=lambda taken: None,
    )


def test_rounds_are_in_random_order_between_samples_of_the_reference(steady_device) -> None:
    device = steady_device()
    found = sample(device)
    rounds = [device.sampled[start : start + 6] for start in range(0, len(device.calls), 6)]
    assert [r[0] for r in rounds] == [REFERENCE] * 4
    assert all(set(r[1:]) == set(OPERATORS) for r in rounds[:3])
    assert len({tuple(r) for r in rounds[:3]}) > 1
    assert all(size == {**OPERATORS, REFERENCE: 7}[operator] for operator, size in device.calls)
    assert {operator: len(times) for operator, times in found.times_ms.items()} == dict.fromkeys(OPERATORS, 12)
    assert (found.rounds, found.unsteady, found.unsettled) == (3, 0, 0)


def test_only_operators_that_are_not_sure_are_sampled_again(steady_device) -> None:
    restless = next(iter(OPERATORS))
    generator = random.Random(1)
    device = steady_device(lambda operator: generator.uniform(1, 2) if operator == restless else 3.0)
    found = sample(device)
    assert {operator: len(times) for operator, times in found.times_ms.items()} == {
        **dict.fromkeys(OPERATORS, 12),
        restless: 36,
    }


def test_one_slow_round_moves_no_median(steady_device) -> None:
    """The second round, of samples 7 to 12, is slowed down, the reference too: it does not count and is made up for."""
    device = steady_device(lambda operator: 2.0, pace=lambda number: 3.0 if 7 <= number <= 12 else 1.0)
    found = sample(device)
    assert all(np.allclose(times, 2.0) for times in found.times_ms.values())
    assert found.unsteady == 2
    assert found.rounds == 5
    assert found.unsettled == 0


def test_a_lasting_change_of_clocks_keeps_the_times_of_one_level(steady_device) -> None:
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.0 if number < 8 else 0.5)
    found = sample(device)
    assert all(np.allclose(times, 1.0) for times in found.times_ms.values())
    assert found.unsteady == 2


def test_clocks_that_never_settle_end_after_the_most_rounds(steady_device) -> None:
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.3**number)
    found = sample(device)
    assert found.rounds == 9
    assert found.unsettled == len(OPERATORS)
    assert all(len(times) >= 4 for times in found.times_ms.values())


def test_a_time_limit_leaves_two_rounds(steady_device) -> None:
    device = steady_device()
    assert sample(device, seconds=0.0).rounds == 2


def test_the_error_of_a_median_is_what_resampling_gives() -> None:
    generator = np.random.default_rng(0)
    rounds_ms = [[x] for x in generator.normal(10, 1, 400)]
    resampled = [np.median(generator.choice(np.ravel(rounds_ms), 400)) for _ in range(2000)]
    assert median_error(rounds_ms) == pytest.approx(np.std(resampled) / 10, rel=0.3)


def test_the_error_of_equal_rounds_is_zero_and_of_one_round_unknown() -> None:
    assert median_error([[1.0, 2.0, 3.0]] * 3) == 0
    assert median_error([[1.0, 2.0]]) == float("inf")
