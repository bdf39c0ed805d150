"""The multiple-choice knapsack: of every unit one option, so that loss is least for what it costs."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Options = npt.NDArray[np.int64]
MOST_STATES = 4096
"""States kept after each unit. As long as fewer arise the front is exact."""


def solve_front(costs: Sequence[Floats], losses: Sequence[Floats], *, most_states: int = MOST_STATES) -> Options:
    """Return every choice of options that no other beats in total cost and total loss.

    Units are added one by one; of the partial sums only those stay that no other one dominates. Where more than
    `most_states` stay, the cost axis is cut into so many cells of equal width and the best of each is kept: the sum of
    costs stays exact, and a member of the true front is missed by at most one cell for each unit.

    Args:
        costs: For each unit the cost of its options, (options,), finite.
        losses: For each unit the loss of its options, (options,), finite.
        most_states: Bound on the states, 2 or more.

    Returns:
        Options of each unit, shape (members, units), by rising cost and falling loss.

    Reference:
        Nemhauser and Ullmann, "Discrete dynamic programming and capital allocation", Management Science 15, 1969.
    """
    total_cost, total_loss = np.zeros(1), np.zeros(1)
    history: list[tuple[Options, Options]] = []
    for cost, loss in zip(costs, losses, strict=True):
        sums = (total_cost[:, None] + cost).ravel()
        lost = (total_loss[:, None] + loss).ravel()
        kept = _nondominated(sums, lost, most_states)
        total_cost, total_loss = sums[kept], lost[kept]
        history.append((kept // len(cost), kept % len(cost)))
    state = np.arange(len(total_cost))
    found = np.empty((len(state), len(history)), dtype=np.int64)
    for unit in range(len(history) - 1, -1, -1):
        parents, options = history[unit]
        found[:, unit] = options[state]
        state = parents[state]
    return found


def _nondominated(costs: Floats, losses: Floats, most: int) -> Options:
    """Positions of the sums that none dominates, by rising cost; of equal ones the first."""
    order = np.lexsort((losses, costs))
    sorted_losses = losses[order]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(sorted_losses)[:-1]])
    kept: Options = order[sorted_losses < best_before]
    if len(kept) <= most:
        return kept
    spread = costs[kept[-1]] - costs[kept[0]]
    cell = np.floor((costs[kept] - costs[kept[0]]) / spread * (most - 1)).astype(np.int64)
    # The last of a cell costs most and loses least; both ends of the front stay.
    is_last = np.append(cell[1:] != cell[:-1], True)
    is_last[0] = True
    thinned: Options = kept[is_last]
    return thinned


def weight_sweep(costs: int, steps: int = 5) -> Floats:
    """Return weights that add several costs up to one, shape (weights, costs): Lagrangian multipliers by direction.

    Args:
        costs: How many costs, 1 or more.
        steps: Weights between two costs.
    """
    if costs == 1:
        return np.ones((1, 1))
    corners = np.eye(costs)
    between = [
        corners[a] * share + corners[b] * (1 - share)
        for a in range(costs)
        for b in range(a + 1, costs)
        for share in np.linspace(0, 1, steps + 2)[1:-1]
    ]
    return np.vstack([corners, *between])
