import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.latency.interpolation import AXES, TimeGrid
from evaluators.latency.workload import AXIS_NAMES, Operator, OperatorKind

TIMES = st.floats(1e-4, 1e4)
SIZES = st.lists(st.integers(1, 5000), min_size=2, max_size=5, unique=True).map(sorted)


def quantize(features: int, tokens: int) -> Operator:
    return Operator.of(OperatorKind.QUANTIZE, features=features, tokens=tokens)


def linear(in_features: int, out_features: int, tokens: int) -> Operator:
    return Operator.of(
        OperatorKind.LINEAR, format="fp32", in_features=in_features, out_features=out_features, tokens=tokens
    )


def attention(sequence: int) -> Operator:
    return Operator.of(OperatorKind.ATTENTION_CORE, batch=1, sequence=sequence, heads=2, queries=1, head_dim=8)


@st.composite
def grids(draw):
    """A full grid of quantize operators over features and tokens, with a point inside it."""
    features, tokens = draw(SIZES), draw(SIZES)
    times = {quantize(f, t): draw(TIMES) for f in features for t in tokens}
    inside = quantize(draw(st.integers(features[0], features[-1])), draw(st.integers(tokens[0], tokens[-1])))
    return times, features, tokens, inside


def around(sizes: list[int], size: int) -> tuple[int, int]:
    return max(s for s in sizes if s <= size), min(s for s in sizes if s >= size)


def bilinear(times: dict[Operator, float], features: list[int], tokens: list[int], inside: Operator) -> float:
    """The textbook formula over the four corners, in logarithms."""
    f, t = inside.axis("features"), inside.axis("tokens")
    (f0, f1), (t0, t1) = around(features, f), around(tokens, t)
    u = 0.0 if f0 == f1 else math.log(f / f0) / math.log(f1 / f0)
    v = 0.0 if t0 == t1 else math.log(t / t0) / math.log(t1 / t0)
    corners = [(f0, t0, (1 - u) * (1 - v)), (f1, t0, u * (1 - v)), (f0, t1, (1 - u) * v), (f1, t1, u * v)]
    return math.exp(sum(weight * math.log(times[quantize(a, b)]) for a, b, weight in corners))


def test_every_kind_is_interpolated_along_axes_that_it_has():
    assert AXIS_NAMES.keys() == AXES.keys() == set(OperatorKind)
    assert all(set(AXES[kind]) <= set(AXIS_NAMES[kind]) for kind in OperatorKind)


@given(grids())
def test_grid_points_are_exact(grid):
    times, *_ = grid
    found = {operator: TimeGrid(times).find(operator) for operator in times}
    assert {operator: f.time_ms for operator, f in found.items()} == times
    assert not any(f.extrapolated for f in found.values())


@given(grids())
def test_inside_a_cell_it_is_bilinear_and_between_the_corners(grid):
    times, features, tokens, inside = grid
    found = TimeGrid(times).find(inside)
    assert not found.extrapolated
    assert found.time_ms == pytest.approx(bilinear(times, features, tokens, inside), rel=1e-9)
    corners = [
        times[quantize(f, t)]
        for f in around(features, inside.axis("features"))
        for t in around(tokens, inside.axis("tokens"))
    ]
    assert min(corners) * (1 - 1e-9) <= found.time_ms <= max(corners) * (1 + 1e-9)


@given(first=TIMES, rise=st.floats(1, 50), sizes=st.lists(st.integers(8, 64), min_size=2, max_size=2).map(sorted))
def test_within_a_cell_time_rises_with_the_width_where_its_ends_do(first, rise, sizes):
    grid = TimeGrid({quantize(8, 8): first, quantize(64, 8): first * rise})
    low, high = (grid.find(quantize(size, 8)).time_ms for size in sizes)
    assert low <= high * (1 + 1e-12)


@given(exponents=st.tuples(*[st.floats(0.1, 2)] * 3), data=st.data())
def test_power_laws_of_three_axes_are_exact(exponents, data):
    axes = [data.draw(SIZES) for _ in range(3)]
    point = [data.draw(st.integers(sizes[0], sizes[-1])) for sizes in axes]

    def law(sizes):
        return 1e-6 * math.prod(size**exponent for size, exponent in zip(sizes, exponents, strict=True))

    grid = TimeGrid({linear(*sizes): law(sizes) for sizes in itertools.product(*axes)})
    assert grid.find(linear(*point)).time_ms == pytest.approx(law(point), rel=1e-9)


def test_two_tables_of_other_tokens_need_not_have_the_same_widths():
    times = {quantize(w, 32): 32 * w * 1e-3 for w in (64, 500, 1024)} | {quantize(w, 64): 0.064 * w for w in (64, 1024)}
    assert TimeGrid(times).find(quantize(300, 48)).time_ms == pytest.approx(300 * 48e-3)


@pytest.mark.parametrize("outside", [quantize(7, 8), quantize(65, 8), quantize(64, 17), quantize(64, 7)], ids=str)
def test_what_is_not_between_measured_points_is_refused(outside):
    grid = TimeGrid({quantize(8, 8): 1.0, quantize(64, 8): 8.0, quantize(64, 16): 16.0})
    assert grid.find(outside) is None
    assert grid.find(outside, extrapolate=True).extrapolated
    assert grid.find(quantize(16, 9), extrapolate=True) is None, "a corner of the cell is missing"


def test_extrapolation_goes_on_as_the_line_rose():
    grid = TimeGrid({quantize(8, 8): 1.0, quantize(64, 8): 1.0 * 8**0.5})
    assert grid.find(quantize(256, 8), extrapolate=True).time_ms == pytest.approx(32**0.5)
    assert grid.find(quantize(2, 8), extrapolate=True).time_ms == pytest.approx(0.25**0.5)


@pytest.mark.parametrize(("last_ms", "expected_ms"), [(0.5, 0.5), (400.0, 800.0)], ids=["falling", "too steep"])
def test_extrapolation_neither_falls_nor_outgrows_the_work(last_ms, expected_ms):
    grid = TimeGrid({quantize(8, 8): 1.0, quantize(64, 8): last_ms})
    assert grid.find(quantize(128, 8), extrapolate=True).time_ms == pytest.approx(expected_ms)


def test_attention_may_grow_with_the_square_of_the_sequence():
    grid = TimeGrid({attention(8): 1.0, attention(16): 4.0})
    assert grid.find(attention(32), extrapolate=True).time_ms == pytest.approx(16.0)


def test_extrapolation_along_tokens_of_an_interpolated_width():
    times = {quantize(w, t): w * t * 1e-3 for w in (8, 64) for t in (16, 512)}
    found = TimeGrid(times).find(quantize(24, 4096), extrapolate=True)
    assert found.extrapolated
    assert found.time_ms == pytest.approx(24 * 4.096)


def test_one_point_answers_for_itself_only():
    grid = TimeGrid({quantize(8, 8): 1.0})
    assert grid.find(quantize(8, 8)).time_ms == 1.0
    assert grid.find(quantize(16, 8)) is None
    assert grid.find(quantize(16, 8), extrapolate=True) is None
    assert grid.exceeded(quantize(16, 8)) == {"features": (8, 8)}
    assert grid.exceeded(linear(8, 8, 8)) == {}
    assert list(grid.lines()) == []


def test_lines_are_sorted_by_size():
    (line,) = TimeGrid({quantize(64, 8): 2.0, quantize(8, 8): 1.0}).lines()
    assert line == ("features", [(quantize(8, 8), 1.0), (quantize(64, 8), 2.0)])
