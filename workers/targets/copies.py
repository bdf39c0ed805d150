"""How an operator is repeated with other weights, so that these come from the same cache or memory as in a model."""

import math
from collections.abc import Iterable

from evaluators.latency import working_set
from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.formats import FORMATS

TARGET_WEIGHT_BYTES = 8 * 2**20
"""Weights of all copies together, about."""
MOST_WEIGHT_BYTES = 48 * 2**20
"""Weights of so many copies that they fill the working set by themselves, at most."""
MAX_WORKING_SET_BYTES = 128 * 2**20
"""More than this is in memory whatever the model's size."""
MAX_COPIES = 16
MOST_PRODUCTS = 64
"""Copies of a product that fill a working set, at most."""
FEWEST_COPIES_WITHIN = 4
"""A working set does not make copies fewer than these: the cost of a call is shared among them."""
COPIES_MULTIPLICATIONS = 2 * 10**8
"""Multiplications of all copies together, at most: beyond this a call's own cost no longer matters."""
MOST_MULTIPLICATIONS = 2 * 10**9
"""The same of copies that fill a working set: some tens of milliseconds."""
_WEIGHTED = (OperatorKind.LINEAR, OperatorKind.EMBEDDING, OperatorKind.CONVOLUTION, OperatorKind.DEPTHWISE)


def weight_bytes(operator: Operator) -> int:
    """Bytes of weights that one copy of an operator reads, 0 where it has none worth counting."""
    if operator.kind is OperatorKind.EMBEDDING:
        number_format = FORMATS.get(operator.format or "fp32")
        return number_format.weight_bytes(operator.axis("rows"), operator.axis("features"))
    return working_set.weight_bytes(operator)


def copies_of(operator: Operator, working_set_bytes: int = MAX_WORKING_SET_BYTES, *, fill: bool = False) -> int:
    """How many copies of an operator stand in its graph.

    Args:
        operator: What is timed.
        working_set_bytes: What the weights of all copies should not exceed, as long as there are a few of them.
        fill: Take as many copies of a product as fill the working set, within reason. Other data that is read in
            between displaces weights from a cache less than weights do, which lie about in memory as a model's.
    """
    weight = weight_bytes(operator)
    if weight == 0:
        return MAX_COPIES
    is_filled = fill and operator.kind is OperatorKind.LINEAR
    most, most_bytes = (MOST_PRODUCTS, MOST_WEIGHT_BYTES) if is_filled else (MAX_COPIES, TARGET_WEIGHT_BYTES)
    within = max(FEWEST_COPIES_WITHIN, working_set_bytes // weight)
    copies = min(most, most_bytes // weight, within)
    if operator.kind is OperatorKind.EMBEDDING:
        return max(1, copies)
    if operator.kind is OperatorKind.CONVOLUTION:
        axes = ["batch", "height", "width", "in_channels", "out_channels", "kernel", "kernel"]
    else:
        axes = ["tokens", "in_features", "out_features"]
    multiplications = MOST_MULTIPLICATIONS if is_filled else COPIES_MULTIPLICATIONS
    return max(2, min(copies, multiplications // math.prod(operator.axis(a) for a in axes)))


def displaced_by(operator: Operator, copies: int, working_set_bytes: int) -> int:
    """Bytes of other data to read between two runs of the copies; 0 where the operator reads no weights.

    Args:
        operator: What is timed.
        copies: How many of it, each with weights of its own.
        working_set_bytes: What the model reads between two runs of the same weights; see `Device.sample`.
    """
    if operator.kind not in _WEIGHTED:
        return 0
    return max(0, min(working_set_bytes, MAX_WORKING_SET_BYTES) - copies * weight_bytes(operator))


def share_of_copies(times_ms: Iterable[float], call_ms: float, copies: int) -> tuple[float, ...]:
    """Return the time of one copy in each run, without what a call costs.

    Args:
        times_ms: Time of a call that runs all copies, for each run.
        call_ms: Time of a call that does nothing.
        copies: How many of the operator a call runs.
    """
    # A call's cost varies by itself: what is left of a tiny operator must not become zero or negative.
    return tuple(float(max(t - call_ms, 0.05 * t) / copies) for t in times_ms)
