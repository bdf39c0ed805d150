"""Rungs: nested parts of a split, in a fixed order, on which a policy is scored before all examples are.

Rung r holds the first r + 1 segments; the last rung is the whole split. Examples are drawn into segments by a fixed
seed, whatever the target's batch, so that every rung is a random sample without replacement, the same for all policies.
"""

import random
from bisect import bisect_left
from functools import lru_cache

EVALUATION_VERSION = 2
"""Counts changes of how examples are grouped into calls: scores of different versions do not compare."""
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Share of a large split's examples in each rung."""
_SMALLEST_SEGMENT = 8
_SEED = 0


@lru_cache(maxsize=64)
def rung_sizes(examples: int) -> tuple[int, ...]:
    """Return how many examples each rung holds; the last one holds all.

    Args:
        examples: Examples of the split, 1 or more. Below 128 there are fewer rungs: every segment has at least 8
            examples, or there is but one.
    """
    sizes: list[int] = []
    for share in SHARES[:-1]:
        size = round(share * examples)
        if size - (sizes[-1] if sizes else 0) >= _SMALLEST_SEGMENT and examples - size >= _SMALLEST_SEGMENT:
            sizes.append(size)
    return (*sizes, examples)


@lru_cache(maxsize=64)
def rung_order(examples: int) -> tuple[int, ...]:
    """Return the positions of a split's examples in the order in which rungs take them."""
    order = list(range(examples))
    random.Random(_SEED).shuffle(order)
    return tuple(order)


def segments(examples: int) -> tuple[tuple[int, ...], ...]:
    """Return the positions of the examples in each segment: every one once, in the order of `rung_order`."""
    order, sizes = rung_order(examples), rung_sizes(examples)
    return tuple(order[start:end] for start, end in zip((0, *sizes), sizes, strict=False))


def rung_share(rung: int, examples: int | None = None) -> float:
    """Return the share of a split's examples in a rung, above 0 to 1.

    Args:
        rung: From 0; one beyond the last means the whole split.
        examples: Examples of the split; None for a large one.
    """
    if examples is None:
        return SHARES[min(rung, len(SHARES) - 1)]
    sizes = rung_sizes(examples)
    return sizes[min(rung, len(sizes) - 1)] / examples


def rung_of(scored: int, examples: int) -> int | None:
    """Return the rung that holds so many examples; None for the whole split.

    Raises:
        ValueError: No rung of the split holds that many.
    """
    sizes = rung_sizes(examples)
    rung = bisect_left(sizes, scored)
    if rung >= len(sizes) or sizes[rung] != scored:
        raise ValueError(f"a rung of {examples} examples holds one of {sizes}; got {scored} scored examples")
    return None if rung == len(sizes) - 1 else rung
