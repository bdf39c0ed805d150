"""Measures how products depend on where their weights come from: a cache that holds them all, or memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from evaluators.latency.table import CacheCurve
from evaluators.latency.working_set import weight_bytes
from evaluators.latency.workload import Operator, OperatorKind
from workers.targets.device import Device
from workers.targets.undisturbed import undisturbed_ms

SMALLEST_BYTES = 2**18
"""Working sets are measured from the largest down to this."""
FINE = 4
"""Down to this fraction of the largest, sizes differ by the square root of two; below it by two."""
ROUNDS = 6
FEWEST_ROUNDS = 2
RUNS = 8
REACHES = 1.1
"""A curve that ends at so many times fewer bytes than a model has serves for it."""
FEWEST_OPERATORS = 3
"""Products of a format and number of tokens that are so few are not a model's many layers."""


def curve_operators(operators: Iterable[Operator]) -> dict[tuple[str, int], Operator]:
    """Return the product to measure for each format and number of tokens: the one of middling size.

    Args:
        operators: Those that a table is to answer for.
    """
    found: dict[tuple[str, int], list[Operator]] = {}
    for operator in operators:
        if operator.kind is OperatorKind.LINEAR and weight_bytes(operator):
            found.setdefault((str(operator.format), operator.axis("tokens")), []).append(operator)
    return {
        key: sorted(products, key=lambda o: (weight_bytes(o), str(o)))[len(products) // 2]
        for key, products in sorted(found.items())
        if len(products) >= FEWEST_OPERATORS
    }


def working_sets(largest_bytes: int) -> tuple[int, ...]:
    """Return the sizes to measure, rising: the largest and smaller ones, as far as caches may tell them apart."""
    found = [float(largest_bytes)]
    while found[-1] > SMALLEST_BYTES:
        found.append(found[-1] / (2**0.5 if found[-1] > largest_bytes / FINE else 2))
    return tuple(sorted(round(size) for size in found))


def measure_curves(
    products: Mapping[tuple[str, int], Operator],
    device: Device,
    *,
    largest_bytes: int,
    generator: random.Random,
    progress: Callable[[int, int], None],
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[CacheCurve, ...]:
    """Time products with working sets from small to the dense model's; a model that is as small has no curves.

    Args:
        products: A product for each format and number of tokens; see `curve_operators`.
        device: What is measured.
        largest_bytes: The largest working set.
        generator: Source of orders and seeds.
        progress: Called with samples taken and samples in all.
        is_late: Whether time is over; then no further round starts, once there are two.
    """
    sizes = working_sets(largest_bytes)
    if len(sizes) == 1:
        return ()
    points = [(key, size) for key in products for size in sizes]
    times_ms: dict[tuple[tuple[str, int], int], list[float]] = {point: [] for point in points}
    done = 0
    for number in range(ROUNDS):
        if number >= FEWEST_ROUNDS and is_late():
            break
        for key, size in generator.sample(points, len(points)):
            seed = generator.getrandbits(32)
            times_ms[key, size] += device.sample(products[key], runs=RUNS, seed=seed, working_set_bytes=size)
            done += 1
            progress(done, ROUNDS * len(points))
    return tuple(
        CacheCurve(
            format=key[0],
            tokens=key[1],
            sizes_bytes=sizes,
            times=rising([undisturbed_ms(times_ms[key, size]) for size in sizes]),
        )
        for key in products
    )


def rising(times_ms: Sequence[float]) -> tuple[float, ...]:
    """Return the rising times that are closest to some, as multiples of the last (isotonic least squares)."""
    from scipy.optimize import isotonic_regression

    found = isotonic_regression(np.asarray(times_ms)).x
    return tuple(float(x) for x in found / found[-1])
