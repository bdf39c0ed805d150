"""Costs that are sums over units, for many policies at once."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Options = npt.NDArray[np.int64]

CHUNK = 4096
"""Rows that are summed at a time, so that what is gathered for them stays in the cache."""


class AdditiveCosts:
    """Adds up what the option of each unit costs.

    Args:
        base: Costs that no option changes, (costs,).
        increments: What every option of every unit adds, (units, options of the widest unit, costs); NaN where a unit
            has fewer options.
    """

    def __init__(self, base: Floats, increments: Floats) -> None:
        self.base = np.asarray(base, dtype=np.float64)
        self.units, self.width, self.costs = increments.shape
        # One flat table a cost: gathering from it by one index is several times as fast as by unit and option.
        self._tables = [np.ascontiguousarray(increments[:, :, cost]).ravel() for cost in range(self.costs)]
        self._offsets = np.arange(self.units, dtype=np.int64) * self.width

    def of(self, options: Options) -> Floats:
        """Return the costs of points.

        Args:
            options: Position of the option of each unit, (..., units).

        Returns:
            Costs, (..., costs); NaN where a unit does not have the option.

        Raises:
            IndexError: A position is below 0, or not below the number of options of the widest unit.
        """
        flat_NU = options.reshape(-1, self.units)
        found_NC = np.empty((len(flat_NU), self.costs))
        for start in range(0, len(flat_NU), CHUNK):
            rows = flat_NU[start : start + CHUNK]
            if rows.size and not (rows.min() >= 0 and rows.max() < self.width):
                raise IndexError(
                    f"an option is a position from 0 to {self.width - 1}; got {rows.min()} to {rows.max()}; take "
                    "points of the grid that the costs belong to"
                )
            index = rows + self._offsets
            for cost, table in enumerate(self._tables):
                found_NC[start : start + CHUNK, cost] = table.take(index).sum(axis=-1)
        found: Floats = self.base + found_NC.reshape(*options.shape[:-1], self.costs)
        return found
