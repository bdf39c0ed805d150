"""An episode of the `reinforce` sampler: a walk over the units that spends a budget.

Shape letters as in `budget.py` and `policy_network.py`.
"""

from dataclasses import dataclass

import numpy as np

from controller.samplers.budget import CostBudget, CostTarget
from controller.samplers.choices import Floats, Options
from controller.samplers.policy_network import PolicyNetwork, draw
from search_spaces.space import SearchSpace
from search_spaces.units import UnitKind

MOVING_FEATURES = 3
_AIM = 0.95
"""The prior spends so much of the target on average, as what is above it is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What was seen and done along an episode.

    Attributes:
        moving_UD: Cost left and cost of the step before, relative to the target; and the target, relative to the dense
            model's cost.
        prior_UC: Logits of the prior; minus infinity where an action was not open.
        actions_U: The policy.
    """

    moving_UD: Floats
    prior_UC: Floats
    actions_U: Options


class Walk:
    """Walks over the units in order, and retraces the walk of a policy that is known.

    An action is open where the rest of the units can still keep to the target and to the bounds.

    Args:
        budget: Costs of options.
        target: What may be spent.
    """

    def __init__(self, budget: CostBudget, target: CostTarget) -> None:
        self._budget, self._target = budget, target
        self._prior_UC = budget.tilt(CostTarget(axis=target.axis, value=_AIM * target.value))
        caps_A = budget.caps(target)
        cheapest_UA = np.where(budget.offered[..., None], budget.costs_UCA, np.inf).min(axis=1)
        after_UA = np.cumsum(cheapest_UA[::-1], axis=0)[::-1] - cheapest_UA
        # What may be spent up to and with each unit.
        self._allowed_UA = caps_A - budget.grid.base - after_UA
        self._cheapest_U = budget.by_rank_AUC[target.axis, :, 0]
        self._scale = target.value
        self._level = target.value / float(budget.dense_A[target.axis])

    def sample(self, network: PolicyNetwork, fixed_US: Floats, generator: np.random.Generator) -> Options:
        """Draw a policy."""
        unit_UH = network.unit_part(fixed_US)
        options: Options = np.zeros(self._budget.grid.units, dtype=np.int64)
        spent_A, last = np.zeros(self._allowed_UA.shape[1]), 0.0
        for unit, costs_CA in enumerate(self._budget.costs_UCA):
            prior_C = self._open(unit, spent_A)
            logits_C = prior_C + network.logits(unit_UH[unit], self._moving(unit, spent_A, last))
            options[unit] = draw(logits_C, generator)
            spent_A = spent_A + costs_CA[options[unit]]
            last = float(costs_CA[options[unit], self._target.axis])
        return self._budget.settle(options, self._budget.caps(self._target), generator)

    def retrace(self, options: Options) -> Trace:
        """Return what a walk to a policy sees."""
        budget, rows = self._budget, np.arange(self._budget.grid.units)
        costs_UA = budget.costs_UCA[rows, options]
        spent_UA = np.cumsum(costs_UA, axis=0) - costs_UA
        axis = self._target.axis
        left_U = (self._allowed_UA[:, axis] - spent_UA[:, axis]) / self._scale
        last_U = np.concatenate([[0.0], costs_UA[:-1, axis]]) / self._scale
        fits_UC = (spent_UA[:, None] + budget.costs_UCA <= self._allowed_UA[:, None]).all(axis=2)
        # A policy that was settled at the end may hold what the walk had closed.
        fits_UC[rows, options] = True
        fits_UC[rows, self._cheapest_U] = True
        return Trace(
            moving_UD=np.stack([left_U, last_U, np.full_like(left_U, self._level)], axis=1),
            prior_UC=np.where(fits_UC, self._prior_UC, -np.inf),
            actions_U=options,
        )

    def _moving(self, unit: int, spent_A: Floats, last: float) -> Floats:
        left = (self._allowed_UA[unit, self._target.axis] - spent_A[self._target.axis]) / self._scale
        return np.array([left, last / self._scale, self._level])

    def _open(self, unit: int, spent_A: Floats) -> Floats:
        """Return the prior with what can't be paid for closed; the cheapest option always stays open."""
        fits_C = (spent_A + self._budget.costs_UCA[unit] <= self._allowed_UA[unit]).all(axis=1)
        fits_C[self._cheapest_U[unit]] = True
        found: Floats = np.where(fits_C, self._prior_UC[unit], -np.inf)
        return found


def unit_features(space: SearchSpace) -> Floats:
    """Return what is known of units before any trial, shape (U, S - 1): kind, position, groups, parameters.

    Kinds are one-hot; the rest is scaled to 0 to 1 over the model's units.
    """
    units = [unit_space.unit for unit_space in space.unit_spaces]
    kinds = np.array([[unit.kind is kind for kind in UnitKind] for unit in units], dtype=np.float64)
    widths = np.array(
        [[unit.groups, sum(rows * columns for _, rows, columns in unit.layer_shapes(unit.groups))] for unit in units]
    )
    columns = [np.arange(len(units))[:, None], np.log1p(widths)]
    return np.concatenate([kinds, *(_scaled(column) for column in columns)], axis=1)


def _scaled(column: Floats) -> Floats:
    spread = np.ptp(column, axis=0)
    found: Floats = (column - column.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    return found
