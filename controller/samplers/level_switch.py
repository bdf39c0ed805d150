"""Level-switch mutation: what some units save, others spend.

Shape letters as in `budget.py`.
"""

import numpy as np

from controller.samplers.budget import CostBudget, CostTarget
from controller.samplers.choices import Options

_MOST_SWITCHES = 3
_MOST_LEVELS = 3
_MOST_FILLS = 4


def switch_levels(budget: CostBudget, parent: Options, target: CostTarget, generator: np.random.Generator) -> Options:
    """Make some random units cheaper, and others dearer for what that saved.

    Few switches are likelier than many. Units differ in size, so one raise seldom spends exactly what a lowering
    saves: up to four more units are raised to whatever still fits below the target.

    Args:
        budget: Costs of options.
        parent: The policy to change, its cost at the target or below it.
        target: The cost that must not be exceeded.
        generator: Where randomness comes from.

    Returns:
        A policy that keeps to the target and to the declared bounds.

    Reference:
        EvoPress, arXiv 2410.14649, section 3.
    """
    caps_A = budget.caps(target)
    child = parent.copy()
    switches = int(min(generator.integers(1, _MOST_SWITCHES + 1, size=2)))
    lowered = np.zeros(budget.grid.units, dtype=np.bool_)
    for _ in range(switches):
        able = np.flatnonzero((budget.rank(target.axis, child) > 0) & ~lowered)
        if not len(able):
            break
        unit = int(able[generator.integers(len(able))])
        rank = int(budget.ranks_AUC[target.axis, unit, child[unit]]) - int(generator.integers(1, _MOST_LEVELS + 1))
        child[unit] = budget.by_rank_AUC[target.axis, unit, max(0, rank)]
        lowered[unit] = True
    for turn in range(switches + _MOST_FILLS):
        if not _raise_one(budget, child, target.axis, caps_A, lowered, generator, fill=turn >= switches):
            break
    return budget.settle(child, caps_A, generator)


def _raise_one(
    budget: CostBudget,
    child: Options,
    axis: int,
    caps_A: np.typing.NDArray[np.float64],
    barred: np.typing.NDArray[np.bool_],
    generator: np.random.Generator,
    *,
    fill: bool,
) -> bool:
    """Make one random unit dearer in place, by any step that fits, or to fill the largest; False where none fits."""
    rows = np.arange(budget.grid.units)
    steps_UCA = budget.costs_UCA - budget.costs_UCA[rows, child][:, None]
    fits_UC = budget.offered & (steps_UCA[..., axis] > 0) & ~barred[:, None]
    fits_UC &= (steps_UCA <= caps_A - budget.totals(child)).all(axis=2)
    units = np.flatnonzero(fits_UC.any(axis=1))
    if not len(units):
        return False
    unit = int(units[generator.integers(len(units))])
    options = np.flatnonzero(fits_UC[unit])
    if fill:
        child[unit] = options[np.argmax(steps_UCA[unit, options, axis])]
    else:
        child[unit] = options[generator.integers(len(options))]
    return True
