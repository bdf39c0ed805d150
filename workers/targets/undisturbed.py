"""The time that something takes while nobody disturbs it, from runs of which many were disturbed.

Other work on a machine only ever adds to a run's time, and it comes and goes within milliseconds: on shared processors
times have two modes, with and without a neighbour on the same core, half again apart. A median lies in one or the other
by chance. The fastest runs agree from one hour to the next.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Times = Sequence[float] | npt.NDArray[np.float64]

FASTEST = 0.2
"""Share of the runs, the fastest, that count as undisturbed; their median is the time."""
_MIDDLE = FASTEST / 2
_AROUND = (0.025, 0.25)


def undisturbed_ms(times_ms: Times) -> float:
    """Return the median of the fastest fifth of some runs, with linear interpolation between runs.

    Args:
        times_ms: One time or more.
    """
    return float(np.quantile(times_ms, _MIDDLE))


def undisturbed_spread_ms(times_ms: Times) -> float:
    """Return how wide the undisturbed times spread: from the fastest fortieth of the runs to the first quartile.

    It is wide where fewer runs than a quarter were undisturbed, or where these differ among themselves.

    Args:
        times_ms: One time or more.
    """
    low, high = np.quantile(times_ms, _AROUND)
    return float(high - low)
