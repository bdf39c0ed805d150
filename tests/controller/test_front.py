"""The front, its hypervolume and its knee, against naive implementations and Optuna's own."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from controller.front import (
    FrontMember,
    feasible,
    hypervolume,
    knee,
    knee_order,
    least_violating,
    nondominated,
    pareto_front,
    reference_point,
    violations,
)
from controller.job import Constraints, Objective

ALL = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)
TWO = (Objective.QUALITY, Objective.LATENCY_MS)


def member(number: int, quality: float, latency_ms: float, size_bytes: int = 100, digest: str = "") -> FrontMember:
    return FrontMember(
        number=number,
        policy_digest=digest or f"p{number}",
        name=f"trial {number}",
        quality=quality,
        latency_ms=latency_ms,
        size_bytes=size_bytes,
    )


DENSE = member(0, 0.9, 10.0, 100)
# Few levels, so that ties and duplicates are frequent.
LEVELS = st.integers(1, 6)
MEMBERS = st.lists(st.tuples(LEVELS, LEVELS, LEVELS), min_size=1, max_size=12).map(
    lambda rows: [member(i + 1, q / 10, float(latency), size * 10) for i, (q, latency, size) in enumerate(rows)]
)


def dominates(a: FrontMember, b: FrontMember) -> bool:
    better = (a.quality >= b.quality, a.latency_ms <= b.latency_ms, a.size_bytes <= b.size_bytes)
    differs = (a.quality, a.latency_ms, a.size_bytes) != (b.quality, b.latency_ms, b.size_bytes)
    return all(better) and differs


@given(MEMBERS)
def test_the_front_is_what_nothing_dominates_with_ties(members: list[FrontMember]) -> None:
    expected = {m.number for m in members if not any(dominates(other, m) for other in members)}
    assert {m.number for m in pareto_front(members, ALL)} == expected


@given(MEMBERS)
def test_the_front_falls_in_latency_and_is_its_own_front(members: list[FrontMember]) -> None:
    front = pareto_front(members, TWO)
    assert [m.latency_ms for m in front] == sorted((m.latency_ms for m in front), reverse=True)
    assert pareto_front(front, TWO) == front


def test_one_policy_counts_once_under_its_smallest_number() -> None:
    front = pareto_front([member(7, 0.8, 5.0, digest="same"), member(3, 0.8, 5.0, digest="same")], ALL)
    assert [m.number for m in front] == [3]


def test_no_points_give_no_front() -> None:
    assert pareto_front([], ALL) == []
    assert nondominated(np.empty((0, 2)), [True, False]).shape == (0,)


@settings(max_examples=50)
@given(MEMBERS)
def test_hypervolume_agrees_with_optuna_and_with_counting(members: list[FrontMember]) -> None:
    ours = hypervolume(members, ALL, dense=DENSE, chance_quality=0.1)
    losses = np.array(
        [[-(m.quality - 0.1) / 0.8, m.latency_ms / 10, m.size_bytes / 100] for m in members], dtype=np.float64
    )
    inside = losses[np.all(losses < [0, 1, 1], axis=1)]
    assert ours == pytest.approx(compute_hypervolume(inside, np.array([0.0, 1.0, 1.0])) if len(inside) else 0.0)
    # Cells of a grid on which all levels lie: quality in tenths above chance, latency in ones, size in tens.
    cells = sum(
        any(m.quality >= q / 10 - 1e-9 and m.latency_ms <= latency and m.size_bytes <= 10 * size for m in members)
        for q, latency, size in itertools.product(range(2, 10), range(10), range(10))
    )
    assert ours == pytest.approx(cells / 800)


def test_hypervolume_has_its_landmarks() -> None:
    assert hypervolume([], TWO, dense=DENSE) == 0.0
    assert hypervolume([DENSE], TWO, dense=DENSE) == 0.0
    assert hypervolume([member(1, 0.9, 5.0)], TWO, dense=DENSE) == pytest.approx(0.5)
    assert hypervolume([member(1, 0.9, 20.0)], TWO, dense=DENSE) == 0.0
    assert hypervolume([member(1, 0.05, 1.0)], TWO, dense=DENSE, chance_quality=0.1) == 0.0


def test_hypervolume_needs_a_dense_model_above_chance() -> None:
    with pytest.raises(ValueError, match=r"must be better than chance .*got quality=0.9, chance=0.9"):
        hypervolume([], TWO, dense=DENSE, chance_quality=0.9)


def test_the_knee_lies_farthest_from_the_line_through_the_extremes() -> None:
    front = [member(1, 0.9, 10.0), member(2, 0.88, 4.0), member(3, 0.7, 3.0), member(4, 0.2, 1.0)]
    chord = np.array([0.9 - 0.2, 10.0 - 1.0])
    distances = {m.number: (m.quality - 0.2) / chord[0] - (m.latency_ms - 1.0) / chord[1] for m in front}
    assert knee(front, TWO).number == max(distances, key=lambda number: distances[number]) == 2
    assert knee(front[:1], TWO).number == 1
    with pytest.raises(ValueError, match="empty front"):
        knee([], TWO)
    assert knee_order([], TWO) == []
    ranked = [m.number for m in knee_order(front, TWO)]
    assert ranked == sorted(distances, key=lambda number: -distances[number])


def test_the_reference_point_is_where_hypervolume_begins() -> None:
    dense = FrontMember(number=0, policy_digest="d", name="dense", quality=0.9, latency_ms=10.0, size_bytes=100)
    three = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)
    point = reference_point(three, dense=dense, chance_quality=0.5)
    assert point == {Objective.QUALITY: 0.5, Objective.LATENCY_MS: 10.0, Objective.SIZE_BYTES: 100.0}
    at_it = FrontMember(number=1, policy_digest="r", name="r", quality=0.5, latency_ms=10.0, size_bytes=100)
    beyond = FrontMember(number=2, policy_digest="b", name="b", quality=0.7, latency_ms=5.0, size_bytes=50)
    assert hypervolume([at_it], three, dense=dense, chance_quality=0.5) == 0
    assert hypervolume([beyond], three, dense=dense, chance_quality=0.5) == pytest.approx(0.5**3)


def test_constraints_say_how_far_they_are_broken() -> None:
    constraints = Constraints(max_quality_drop=0.02, max_latency_ms=8.0, max_size_bytes=50)
    broken = violations(member(1, 0.85, 10.0, 40), constraints, 0.9)
    assert broken == pytest.approx({"max_latency_ms": 0.25, "max_size_bytes": -0.2, "max_quality_drop": 0.03})
    assert violations(DENSE, Constraints(), 0.9) == {}


def test_only_feasible_members_stay_and_the_nearest_come_first() -> None:
    constraints = Constraints(max_latency_ms=5.0)
    members = [member(1, 0.9, 9.0), member(2, 0.8, 5.0), member(3, 0.7, 6.0)]
    assert [m.number for m in feasible(members, constraints, 0.9)] == [2]
    assert [m.number for m in least_violating(members, constraints, 0.9, count=2)] == [2, 3]


def test_energy_and_peak_memory_are_costs_like_others() -> None:
    dense, small = (
        FrontMember(
            number=number,
            policy_digest=str(number),
            name="",
            quality=quality,
            latency_ms=1.0,
            size_bytes=1,
            energy_mj=energy,
            peak_memory_bytes=peak,
        )
        for number, quality, energy, peak in ((0, 1.0, 4.0, 100), (1, 0.5, 1.0, 50))
    )
    objectives = (Objective.QUALITY, Objective.ENERGY_MJ, Objective.PEAK_MEMORY_BYTES)
    assert hypervolume([small], objectives, dense=dense) == pytest.approx(0.5 * 0.75 * 0.5)
    constraints = Constraints(max_energy_mj=2.0, max_peak_memory_bytes=40)
    assert violations(small, constraints, 1.0) == pytest.approx({"max_energy_mj": -0.5, "max_peak_memory_bytes": 0.25})


def test_a_cost_that_is_not_known_meets_no_bound() -> None:
    old = FrontMember(number=0, policy_digest="0", name="", quality=1.0, latency_ms=1.0, size_bytes=1)
    assert feasible([old], Constraints(max_energy_mj=1e9), 1.0) == []
    assert feasible([old], Constraints(), 1.0) == [old]
