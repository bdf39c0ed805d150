"""The bar of a race: what a policy must reach to be of use."""

import math
from dataclasses import dataclass

_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a policy must reach to be of use.

    Attributes:
        threshold: Quality on the whole split.
        strict: Whether it must be exceeded.
        reference: Scores of a policy like it on each example of the split, in the split's order; the one that sets the
            threshold where there is one.
        error: Share of the policies at the bar that may be stopped, 0 to 1.
    """

    threshold: float
    strict: bool
    reference: tuple[float, ...]
    error: float = 0.05

    @property
    def needed(self) -> int:
        """Right answers that it takes."""
        total = self.threshold * len(self.reference)
        return math.floor(total + _TOLERANCE) + 1 if self.strict else math.ceil(total - _TOLERANCE)
