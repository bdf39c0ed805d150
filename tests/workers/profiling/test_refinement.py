import itertools
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from evaluators.latency.interpolation import TimeGrid
from evaluators.latency.table import Entry
from evaluators.latency.workload import Operator, OperatorKind
from workers.profiling.refinement import FEW_WIDTHS, blocks_of

Cost = Callable[[Operator], float]


def linear(in_features: int, out_features: int, name: str = "fp32") -> Operator:
    return Operator.of(OperatorKind.LINEAR, format=name, tokens=8, in_features=in_features, out_features=out_features)


def entry(operator: Operator, time_ms: float, spread: float = 0.0) -> Entry:
    return Entry.of(operator, time_ms, spread_ms=spread * time_ms, repeats=10, working_set_bytes=0)


def refine(operators: list[Operator], cost: Cost, spread: float = 0.0) -> dict[Operator, Entry]:
    """Split blocks to the end, measuring by a formula; returns what was measured."""
    blocks, known = blocks_of(operators), {}

    def measure(found) -> None:
        known.update({operator: entry(operator, cost(operator), spread) for operator in found})

    for block in blocks:
        measure(block.chosen())
        while trials := block.trials():
            measure((*block.chosen(), *trials))
            block.split(known)
            measure(block.chosen())
    return known


def work(operator: Operator) -> float:
    return 1e-3 * operator.axis("in_features") * operator.axis("out_features")


def test_a_power_law_needs_a_coarse_grid_and_its_trials_only() -> None:
    wanted = [linear(64, width) for width in range(8, 1025, 8)]
    known = refine(wanted, work)
    assert {linear(64, 8), linear(64, 1024)} <= set(known)
    assert len(known) < len(wanted) / 8


def test_steps_of_a_kernel_are_found() -> None:
    """A kernel that takes blocks of 32 columns: between multiples, times are those of the next multiple."""

    def stepped(operator: Operator) -> float:
        return float(-(-operator.axis("out_features") // 32))

    wanted = [linear(64, width) for width in range(8, 513, 8)]
    grid = TimeGrid({operator: row.median_ms for operator, row in refine(wanted, stepped).items()})
    errors = sorted(abs(grid.find(operator).time_ms / stepped(operator) - 1) for operator in wanted)
    assert errors[len(errors) // 2] <= 0.03
    assert errors[int(0.9 * len(errors))] <= 0.07


def test_an_odd_width_that_costs_more_splits_the_cell() -> None:
    def odd(operator: Operator) -> float:
        return work(operator) * (1 if operator.axis("out_features") % 16 == 0 else 1.2)

    wanted = [linear(64, width) for width in range(8, 257, 8)]
    grid = TimeGrid({operator: row.median_ms for operator, row in refine(wanted, odd).items()})
    assert max(abs(grid.find(o).time_ms / odd(o) - 1) for o in wanted) < 0.2


def test_what_lies_within_the_spread_is_not_split() -> None:
    def bent(operator: Operator) -> float:
        return 1.0 + 1e-3 * operator.axis("out_features")

    wanted = [linear(64, width) for width in range(8, 2049, 8)]
    assert len(refine(wanted, bent, spread=0.3)) < len(refine(wanted, bent))


def test_few_widths_are_all_measured() -> None:
    wanted = [linear(64, 16 * n) for n in range(1, FEW_WIDTHS + 1)]
    assert set(refine(wanted, work)) == set(wanted)


def test_lines_of_a_block_of_a_transformer_are_told_apart() -> None:
    """Producers have one input width, consumers one output width; no other combination is ever measured."""
    wanted = [linear(64, width) for width in range(8, 257, 8)] + [linear(width, 64) for width in range(8, 257, 8)]
    assert set(refine(wanted, lambda operator: work(operator) ** 0.5 + 1)) <= set(wanted)


def test_operators_without_widths_are_measured() -> None:
    embedding = Operator.of(OperatorKind.EMBEDDING, tokens=8, rows=50, features=64)
    assert set(refine([embedding], lambda operator: 1.0)) == {embedding}


def test_formats_and_calls_are_blocks_of_their_own() -> None:
    wanted = [linear(64, 64), linear(64, 64, "w4"), Operator.of(OperatorKind.QUANTIZE, tokens=8, features=64)]
    wanted.append(Operator.of(OperatorKind.QUANTIZE, tokens=16, features=64))
    assert len(blocks_of(wanted)) == 4


@settings(max_examples=60, deadline=None)
@given(
    rows=st.sets(st.integers(1, 400), min_size=1, max_size=14),
    columns=st.sets(st.integers(1, 400), min_size=1, max_size=14),
    others=st.sets(st.tuples(st.integers(1, 400), st.integers(1, 400)), max_size=5),
    bend=st.floats(0.0, 100.0),
)
def test_every_operator_has_a_time_close_to_its_own(rows, columns, others, bend) -> None:
    wanted = list({linear(*pair) for pair in (*itertools.product(rows, columns), *others)})
    known = refine(wanted, lambda operator: bend + work(operator))
    assert set(known) <= set(wanted)
    grid = TimeGrid({operator: row.median_ms for operator, row in known.items()})
    times = {operator: grid.find(operator) for operator in wanted}
    assert all(found is not None and not found.extrapolated for found in times.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_second_run_on_the_same_rows_needs_nothing_more(seed: int) -> None:
    def rough(operator: Operator) -> float:
        return work(operator) * (1 + 0.1 * ((operator.axis("out_features") * (7 + seed)) % 5))

    wanted = [linear(64, width) for width in range(8, 513, 8)]
    first = refine(wanted, rough)
    assert set(refine(wanted, lambda operator: first[operator].median_ms)) == set(first)
