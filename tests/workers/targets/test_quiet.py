"""Telling quiet moments from disturbed ones, with a probe and a clock that the tests set."""

import pytest

from workers.targets.quiet import MOST_PATIENCE_S, PATIENCE_S, RUN_PATIENCE_S, QuietMoments


class Core:
    """A core whose probe takes 1 while it is quiet and 1.5 while a neighbour slows it; every probe takes 1 ms."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.quiet_from_s = 0.0

    def probe(self) -> float:
        self.now_s += 0.001
        return 1.0 if self.now_s >= self.quiet_from_s else 1.5

    def moments(self) -> QuietMoments:
        return QuietMoments(self.probe, lambda: self.now_s)


@pytest.fixture
def core() -> Core:
    return Core()


def test_a_neighbour_is_seen(core: Core) -> None:
    moments = core.moments()
    assert moments.is_quiet()
    core.quiet_from_s = core.now_s + 0.5
    assert not moments.is_quiet()


def test_it_waits_until_the_neighbour_has_gone(core: Core) -> None:
    moments = core.moments()
    core.quiet_from_s = core.now_s + RUN_PATIENCE_S / 2
    moments.wait()
    assert core.now_s == pytest.approx(core.quiet_from_s, abs=0.002)


def test_one_wait_is_short_where_the_neighbour_stays(core: Core) -> None:
    moments = core.moments()
    core.quiet_from_s = float("inf")
    before_s = core.now_s
    moments.wait()
    assert core.now_s - before_s == pytest.approx(RUN_PATIENCE_S, abs=0.002)


@pytest.mark.parametrize(
    ("between_s", "most_s"), [(0.0, PATIENCE_S), (30.0, PATIENCE_S + 30), (3600.0, MOST_PATIENCE_S)]
)
def test_waits_last_as_long_as_the_time_between_them_and_a_little_more(
    core: Core, between_s: float, most_s: float
) -> None:
    moments = core.moments()
    core.quiet_from_s = float("inf")
    core.now_s += between_s
    before_s = core.now_s
    waits = 500
    for _ in range(waits):
        moments.wait()
    # A probe of 1 ms a wait is made in any case.
    assert core.now_s - before_s == pytest.approx(most_s, abs=waits * 0.001 + 0.5)


def test_what_is_usual_is_learnt_when_a_slow_beginning_ends(core: Core) -> None:
    core.quiet_from_s = 2.0
    moments = core.moments()
    assert moments.usual == 1.5
    core.now_s = 2.0
    for _ in range(20):
        moments.is_quiet()
    assert moments.usual == 1.0
    core.quiet_from_s = float("inf")
    assert not moments.is_quiet()


def test_single_fast_probes_are_flukes() -> None:
    probes = iter([*[1.0] * 400, 0.5, *[1.0] * 400])
    seconds = iter(range(1000))
    moments = QuietMoments(lambda: next(probes), lambda: next(seconds) / 100)
    assert all(moments.is_quiet() for _ in range(300))
