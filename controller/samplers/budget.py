"""Policies at a cost: draws near a target, and moves that keep to it and to the declared bounds.

Shape letters: U units, C options of the unit that has most, A cost axes (latency, size, and others that the study
names).
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.samplers.choices import (
    ChoiceGrid,
    Floats,
    Options,
    bounds_in_order,
    costs_in_order,
    costs_of_study,
    grid_of,
)
from controller.samplers.context import SamplerContext
from controller.samplers.knapsack import weight_sweep

_BISECTIONS = 40
_WEIGHTS = 33
_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTarget:
    """A cost at which the best policy is looked for.

    Attributes:
        axis: Cost axis.
        value: Largest cost on it.
    """

    axis: int
    value: float


class CostBudget:
    """What options cost, in arrays that a sampler walks through quickly.

    Where units share no layers and the table has no cache curves the sums are exact. Elsewhere they are estimates:
    around the least lossy policy for channels of convolutions, from below for caches (`ChoiceGrid.price_by`); and
    `settle` compares with the exact costs.

    Args:
        context: Space, exact costs and bounds.

    Attributes:
        grid: The space, with latency and size whatever the objectives are.
        named: What its costs are.
        offered: Shape (U, C); False where a unit has fewer options.
        costs_UCA: What an option adds to `grid.base`; 0 where there is none.
        bounds_A: Declared bounds on costs; infinite where there is none.
        ranks_AUC: How many of the unit's options are cheaper, ties broken by position.
        by_rank_AUC: The unit's options from the cheapest on.
        frugal: The policy that stays farthest below the bounds.
    """

    def __init__(self, context: SamplerContext) -> None:
        self.grid: ChoiceGrid = grid_of(context)
        self.offered: npt.NDArray[np.bool_] = np.arange(self.grid.width) < self.grid.counts[:, None]
        self.costs_UCA: Floats = np.where(self.offered[..., None], self.grid.increments, 0.0)
        self.named = costs_of_study(context)
        self.dense_A: Floats = np.array(costs_in_order(context.cost_of(context.space.dense_policy()), self.named))
        # Bounds are kept on all costs, whether or not they span the front.
        self.bounds_A: Floats = np.array(bounds_in_order(context.constraints, self.named))
        self._rows = np.arange(self.grid.units)
        sortable = np.where(self.offered[..., None], self.costs_UCA, np.inf).transpose(2, 0, 1)
        self.by_rank_AUC = np.argsort(sortable, axis=2, kind="stable")
        self.ranks_AUC = np.argsort(self.by_rank_AUC, axis=2, kind="stable")
        # A sum may be wrong in its last digits, so a declared bound is compared with the exact costs.
        self._sums_suffice = self.grid.is_additive and not np.isfinite(self.bounds_A).any()
        self.frugal = self._most_frugal()

    def totals(self, options: Options) -> Floats:
        """Return the costs of a policy as sums over its units, shape (A,)."""
        found: Floats = self.grid.base + self.costs_UCA[self._rows, options].sum(axis=0)
        return found

    def rank(self, axis: int, options: Options) -> Options:
        """Return for each unit how many of its options are cheaper, shape (U,)."""
        found: Options = self.ranks_AUC[axis, self._rows, options]
        return found

    def targets(self, context: SamplerContext, count: int) -> tuple[CostTarget, ...]:
        """Return costs between the cheapest and the dense policy, or the bound, for each cost among the objectives.

        They are denser towards the cheap end, where one step changes a front most.

        Args:
            context: Its objectives say which costs count.
            count: How many in all, shared between the costs.
        """
        axes = [axis for axis, objective in enumerate(self.named) if objective in context.objectives] or [0]
        steps = max(1, count // len(axes))
        found = []
        for axis in axes:
            low, high = self.range_of(axis)
            values = low + (high - low) * (np.arange(1, steps + 1) / steps) ** 1.5
            found += [CostTarget(axis=axis, value=float(value)) for value in values]
        return tuple(found)

    def range_of(self, axis: int) -> tuple[float, float]:
        """Return what the cheapest policy costs, and what the dense one or the bound allows."""
        cheapest, dearest = (
            float(self.grid.estimate(self.by_rank_AUC[axis, self._rows, place])[axis])
            for place in (np.zeros_like(self.grid.counts), self.grid.counts - 1)
        )
        most = min(float(self.dense_A[axis]), dearest, float(self.bounds_A[axis]))
        return cheapest, max(cheapest, most)

    def caps(self, target: CostTarget) -> Floats:
        """Return the bounds, with one axis held to a target, shape (A,)."""
        found = self.bounds_A.copy()
        found[target.axis] = min(found[target.axis], target.value)
        return found

    def tilt(self, target: CostTarget) -> Floats:
        """Return the distribution over options that says least beside its expected cost.

        Args:
            target: The expected cost, clipped to what the space reaches.

        Returns:
            Logarithms of probabilities, up to a constant for each unit, shape (U, C); minus infinity where there is no
            option.

        Reference:
            Jaynes, "Information theory and statistical mechanics", Physical Review 106, 1957.
        """
        costs_UC = self.costs_UCA[..., target.axis]
        steepest = 60.0 / (float(np.ptp(costs_UC, axis=1).max()) or 1.0)
        low, high = -steepest, steepest
        logits_UC = np.where(self.offered, 0.0, -np.inf)
        for _ in range(_BISECTIONS):
            slope = (low + high) / 2
            logits_UC = np.where(self.offered, -slope * costs_UC, -np.inf)
            weights_UC = np.exp(logits_UC - logits_UC.max(axis=1, keepdims=True))
            expected = float(((weights_UC * costs_UC).sum(axis=1) / weights_UC.sum(axis=1)).sum())
            low, high = (slope, high) if expected > target.value - self.grid.base[target.axis] else (low, slope)
        return logits_UC

    def draw(self, target: CostTarget, generator: np.random.Generator) -> Options:
        """Draw a policy whose cost is near a target and not above it, as far as the space goes."""
        logits_UC = self.tilt(target)
        options: Options = np.argmax(logits_UC + generator.gumbel(size=logits_UC.shape), axis=1)
        return self.settle(options, self.caps(target), generator)

    def settle(self, options: Options, caps_A: Floats, generator: np.random.Generator) -> Options:
        """Make random units cheaper, a step at a time, until a policy keeps to caps.

        Args:
            options: The policy.
            caps_A: Largest costs.
            generator: Where randomness comes from.

        Returns:
            A policy whose exact costs keep to the caps; `frugal` where none was found.
        """
        aim_A = caps_A.copy()
        for _ in range(_ROUNDS):
            options = self._lower(options, aim_A, generator)
            estimate_A = self.totals(options)
            if (estimate_A > aim_A).any():
                options = self._blend(options, aim_A, generator)
                estimate_A = self.totals(options)
            if self._sums_suffice:
                return options
            exact_A = self.grid.exact(options)
            over = exact_A > caps_A
            if not over.any():
                return options
            aim_A[over] = np.minimum(aim_A, estimate_A)[over] - 1.1 * (exact_A - caps_A)[over]
        return self.frugal.copy()

    def _lower(self, options: Options, caps_A: Floats, generator: np.random.Generator) -> Options:
        options, totals_A = options.copy(), self.totals(options)
        for _ in range(int(self.grid.counts.sum()) * 2):
            over_A = totals_A / caps_A - 1
            axis = int(np.argmax(over_A))
            if over_A[axis] <= 0:
                break
            able = np.flatnonzero(self.rank(axis, options) > 0)
            if not len(able):
                break
            unit = int(able[generator.integers(len(able))])
            cheaper = self.by_rank_AUC[axis, unit, self.ranks_AUC[axis, unit, options[unit]] - 1]
            totals_A += self.costs_UCA[unit, cheaper] - self.costs_UCA[unit, options[unit]]
            options[unit] = cheaper
        return options

    def _blend(self, options: Options, caps_A: Floats, generator: np.random.Generator) -> Options:
        """Take options of the frugal policy for as few units as keep to caps, in a random order of units."""
        order = generator.permutation(self.grid.units)
        steps_UA = self.costs_UCA[order, self.frugal[order]] - self.costs_UCA[order, options[order]]
        fits = (self.totals(options) + np.cumsum(steps_UA, axis=0) <= caps_A).all(axis=1)
        taken = order[: int(np.argmax(fits)) + 1] if fits.any() else order
        found: Options = options.copy()
        found[taken] = self.frugal[taken]
        return found

    def _most_frugal(self) -> Options:
        """The policy whose largest ratio of a cost to its bound is smallest, as far as weightings of the costs find it.

        Weightings miss what lies between their solutions, so the units are also taken over one by one from each
        solution to the next.
        """
        bounded = np.isfinite(self.bounds_A)
        if not bounded.any():
            cheapest: Options = self.by_rank_AUC[0, :, 0].copy()
            return cheapest
        scale_A = np.where(bounded, self.bounds_A, np.inf)
        sweep = weight_sweep(int(bounded.sum()), _WEIGHTS - 2)
        weights_WA = np.zeros((len(sweep), len(bounded)))
        weights_WA[:, bounded] = sweep
        weights_WA = weights_WA[np.lexsort(weights_WA.T[::-1])]
        blends = [self.costs_UCA @ (weights_A / scale_A) for weights_A in weights_WA]
        found = [np.where(self.offered, blend_UC, np.inf).argmin(axis=1) for blend_UC in blends]
        for left, right in itertools.pairwise(list(found)):
            steps_UA = self.costs_UCA[self._rows, right] - self.costs_UCA[self._rows, left]
            paths_UA = self.totals(left) + np.cumsum(steps_UA, axis=0)
            taken = int(np.argmin((paths_UA / scale_A).max(axis=1))) + 1
            found.append(np.concatenate([right[:taken], left[taken:]]))
        return min(found, key=lambda options: float((self.totals(options) / scale_A).max()))
