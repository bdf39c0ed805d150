"""Times that neighbours do not move."""

import numpy as np
import pytest

from workers.targets.undisturbed import undisturbed_ms, undisturbed_spread_ms


def test_it_is_the_median_of_the_fastest_fifth() -> None:
    times_ms = [float(x) for x in np.random.default_rng(0).permutation(np.arange(1, 1002))]
    fastest = sorted(times_ms)[:200]
    assert undisturbed_ms(times_ms) == pytest.approx(np.median(fastest), abs=1)
    assert undisturbed_ms([3.0]) == 3.0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_a_neighbour_moves_it_little_and_a_median_much(share: float) -> None:
    generator = np.random.default_rng(1)
    quiet = generator.normal(1, 0.01, 2000)
    shared = np.where(generator.random(2000) < share, 1.6, 1.0) * quiet
    assert undisturbed_ms(shared) == pytest.approx(undisturbed_ms(quiet), rel=0.02)
    assert undisturbed_spread_ms(shared) < 0.05


def test_times_that_are_hardly_ever_undisturbed_spread() -> None:
    generator = np.random.default_rng(2)
    shared = np.where(generator.random(2000) < 0.9, 1.6, 1.0)
    assert undisturbed_spread_ms(shared) > 0.5
