"""Confidence intervals of a mean over examples."""

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    per_example: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of the mean.

    Args:
        per_example: The metric of each example; at least one, all finite.
        confidence: Coverage, between 0 and 1.
        resamples: How many samples are drawn with replacement.
        seed: Seed of the draw.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: No examples, or one that is not finite.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    values = np.asarray(per_example, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs at least one example, all finite; got {values.size} examples")
    levels, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(values.size, counts / values.size, size=resamples)
    means = drawn @ levels / values.size
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
