import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.latency.workload import Operator, OperatorKind
from workers.profiling.caches import curve_operators, measure_curves, rising, working_sets


def product(format_name: str, out_features: int, tokens: int = 32) -> Operator:
    return Operator.of(
        OperatorKind.LINEAR, format=format_name, tokens=tokens, in_features=64, out_features=out_features
    )


class Cached:
    """A device with a cache of 4 MiB, beyond which products take twice as long."""

    def __init__(self) -> None:
        self.seen: list[Operator] = []

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> tuple[float, ...]:
        self.seen.append(operator)
        return (2.0 if working_set_bytes > 4 * 2**20 else 1.0,) * runs


def test_a_product_of_middling_size_stands_for_its_format_and_tokens() -> None:
    few = [product("w8a8", width) for width in (64, 128)]
    many = [product("fp32", width) for width in (64, 512, 128)]
    longer = [product("fp32", width, tokens=64) for width in (64, 96, 128)]
    other = Operator.of(OperatorKind.ACTIVATION, function="gelu", tokens=32, features=64)
    found = curve_operators([*few, *many, *longer, other])
    assert found == {("fp32", 32): product("fp32", 128), ("fp32", 64): product("fp32", 96, tokens=64)}


def test_curves_show_where_a_cache_ends() -> None:
    device = Cached()
    told: list[tuple[int, int]] = []
    (curve,) = measure_curves(
        {("fp32", 32): product("fp32", 128)},
        device,  # type: ignore[arg-type]
        largest_bytes=16 * 2**20,
        generator=random.Random(0),
        progress=lambda done, total: told.append((done, total)),
    )
    assert (curve.format, curve.tokens) == ("fp32", 32)
    assert curve.sizes_bytes[-1] == 16 * 2**20
    levels = [0.5 if size <= 4 * 2**20 else 1.0 for size in curve.sizes_bytes]
    assert list(curve.times) == pytest.approx(levels)
    assert told[-1] == (len(device.seen), len(device.seen))


@given(st.integers(1, 2**33))
def test_sizes_rise_to_the_largest_and_are_finer_near_it(largest: int) -> None:
    sizes = working_sets(largest)
    assert sizes[-1] == largest
    assert sizes[0] <= 2**18 or len(sizes) == 1
    assert all(low < high <= 2.1 * low or high <= 4 for low, high in pairwise(sizes))


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=8))
def test_rising_times_are_the_closest(times_ms: list[float]) -> None:
    found = rising(times_ms)
    assert found[-1] == 1.0
    assert all(low <= high for low, high in pairwise(found))
    # Pool adjacent violators, naively.
    pools = [[x] for x in times_ms]
    while any(sum(a) / len(a) > sum(b) / len(b) for a, b in pairwise(pools)):
        at = next(i for i, (a, b) in enumerate(pairwise(pools)) if sum(a) / len(a) > sum(b) / len(b))
        pools[at : at + 2] = [pools[at] + pools[at + 1]]
    naive = [sum(pool) / len(pool) for pool in pools for _ in pool]
    assert list(found) == pytest.approx([x / naive[-1] for x in naive], rel=1e-9)


def test_a_model_that_any_cache_holds_has_no_curves() -> None:
    found = measure_curves(
        {("fp32", 32): product("fp32", 128)},
        Cached(),  # type: ignore[arg-type]
        largest_bytes=2**17,
        generator=random.Random(0),
        progress=lambda done, total: None,
    )
    assert found == ()
