"""A rough guess at how much each unit matters, from whatever a study has scored."""

import numpy as np

from controller.samplers.choices import Floats


class SensitivityEstimate:
    """Slope of quality over what each unit saves, one unit at a time, in running sums.

    Args:
        units: Number of units.
    """

    def __init__(self, units: int) -> None:
        self._weight = 0.0
        self._quality_mean = 0.0
        self._saved_mean_U = np.zeros(units)
        self._saved_square_U = np.zeros(units)
        self._product_U = np.zeros(units)

    def add(self, saved_U: Floats, quality: float, weight: float) -> None:
        """Take a scored policy.

        Args:
            saved_U: Share of each unit's largest cost that the policy saves, 0 to 1.
            quality: Its quality.
            weight: Share of the examples behind it.
        """
        self._weight += weight
        rate = weight / self._weight
        saved_step_U, quality_step = saved_U - self._saved_mean_U, quality - self._quality_mean
        self._saved_mean_U += rate * saved_step_U
        self._quality_mean += rate * quality_step
        self._saved_square_U += weight * saved_step_U * (saved_U - self._saved_mean_U)
        self._product_U += weight * saved_step_U * (quality - self._quality_mean)

    def sensitivities(self) -> Floats:
        """Return loss of quality for each part saved, from 0 to 1 for the most sensitive unit; 0 where unknown."""
        known_U = self._saved_square_U > 1e-12
        slopes_U = np.where(known_U, -self._product_U / np.where(known_U, self._saved_square_U, 1.0), 0.0)
        losses_U: Floats = np.maximum(slopes_U, 0.0)
        highest = float(losses_U.max(initial=0.0))
        return losses_U / highest if highest > 0 else losses_U
