import random

import pytest

from evaluators.latency.workload import Operator, OperatorKind
from workers.profiling.sampling import ProfileBudget, Reference, Samples, agreeing_rounds, sample_rounds
from workers.targets.undisturbed import undisturbed_ms

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
    assert (found.rounds, found.disturbed, found.unsettled) == (3, 0, 0)


def test_only_operators_that_are_not_sure_are_sampled_again(steady_device) -> None:
    restless = next(iter(OPERATORS))
    generator = random.Random(1)
    device = steady_device(lambda operator: generator.uniform(1, 2) if operator == restless else 3.0)
    found = sample(device)
    repeats = {operator: len(times) for operator, times in found.times_ms.items()}
    assert 12 < repeats.pop(restless) <= 36
    assert repeats == dict.fromkeys([operator for operator in OPERATORS if operator != restless], 12)


def test_one_slow_round_is_made_up_for(steady_device) -> None:
    """The second round, of samples 7 to 12, is slowed down, the reference too."""
    device = steady_device(lambda operator: 2.0, pace=lambda number: 3.0 if 7 <= number <= 12 else 1.0)
    found = sample(device)
    assert all(undisturbed_ms(times) == 2.0 for times in found.times_ms.values())
    assert (found.rounds, found.disturbed, found.unsettled) == (4, 2, 0)


def test_a_lasting_change_of_clocks_gives_the_times_of_the_faster_level(steady_device) -> None:
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.0 if number < 8 else 0.5)
    found = sample(device)
    assert all(undisturbed_ms(times) == 1.0 for times in found.times_ms.values())
    assert (found.disturbed, found.unsettled) == (2, 0)


def test_a_neighbour_who_comes_and_goes_does_not_show(steady_device) -> None:
    """Half of the samples take half again as long, now here, now there."""
    generator = random.Random(3)
    device = steady_device(lambda operator: 2.0, pace=lambda number: generator.choice([1.0, 1.5]))
    found = sample(device, rounds=10, max_rounds=24)
    assert all(undisturbed_ms(times) == 2.0 for times in found.times_ms.values())
    assert found.reference_ms == 2.0
    assert found.disturbed > 0
    assert found.unsettled == 0


def test_clocks_that_never_settle_end_after_the_most_rounds(steady_device) -> None:
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.3**number)
    found = sample(device)
    assert found.rounds == 9
    assert found.unsettled == len(OPERATORS)
    assert all(len(times) >= 4 for times in found.times_ms.values())


def test_a_time_limit_leaves_two_rounds(steady_device) -> None:
    device = steady_device()
    assert sample(device, seconds=0.0).rounds == 2


def test_rounds_agree_that_saw_the_undisturbed_time() -> None:
    rounds_ms = [[1.0, 1.1], [1.5, 1.6], [1.02, 2.0], [1.4, 0.99]]
    assert undisturbed_ms([x for times in rounds_ms for x in times]) == pytest.approx(1.0, abs=0.02)
    # The fastest fifths of two runs each lie a tenth of the way to the slower: 1.01, 1.51, 1.118 and 1.031.
    assert agreeing_rounds(rounds_ms, 0.03) == 1
    assert agreeing_rounds(rounds_ms, 0.05) == 2
    assert agreeing_rounds(rounds_ms, 0.6) == 4
