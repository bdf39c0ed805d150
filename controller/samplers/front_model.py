"""What the `frontier` sampler believes of a study: the quality of any policy, and the front as it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.samplers.choices import ChoiceGrid, Floats, Options
from controller.samplers.history import History, Point, Scored
from controller.samplers.improvement import expected_improvement, improvement_by_levels
from controller.samplers.probing import Label, fill_losses, point_of
from controller.samplers.surrogate import AdditiveLoss, Link, Residual, choose_power, fit_link

_PRIOR_DEVIATION = 0.6
_PRIOR_COMMON = 0.6
_WHOLE_NOISE = 0.2
_BEYOND_BEST = 0.003
"""Share of the quality above guessing by which a policy may be better than the best so far, until trials tell."""
_MOST_KNOWN = 256
_KNOWN_WORK = 40_000
"""Scored policies x units that the surrogate rests on."""
_KL_GUESS = 0.7
"""Divergence in nats at which 63 % of the quality above guessing are gone, until trials say better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What counts as a gain.

    Attributes:
        quality_index: Position of quality among the study's values.
        objectives: Which of the grid's costs the front is spanned by.
        reference: Costs of the reference point, one for each of the grid's costs.
        bounds: Largest costs allowed, likewise; infinite where there is no bound.
        chance: Quality of guessing; the reference point's quality.
        drop: Largest loss of quality allowed; None for no bound.
    """

    quality_index: int
    objectives: tuple[int, ...]
    reference: Floats
    bounds: Floats
    chance: float
    drop: float | None = None

    def allows(self, costs: Floats) -> npt.NDArray[np.bool_]:
        """Return which costs of shape (..., costs) keep all bounds."""
        found: npt.NDArray[np.bool_] = np.all(costs <= self.bounds, axis=-1)
        return found

    def scaled(self, costs: Floats) -> Floats:
        """Return the costs that span the front, in units of the reference point, shape (..., objectives)."""
        found: Floats = (costs / self.reference)[..., list(self.objectives)]
        return found


class FrontModel:
    """Predicts quality, and weighs candidates against the front.

    Args:
        grid: The space.
        goal: What counts as a gain.
    """

    def __init__(self, grid: ChoiceGrid, goal: Goal) -> None:
        self._grid, self._goal = grid, goal
        self._additive = AdditiveLoss(grid)
        self._places = {point_of(grid, label).tobytes(): label for label in self._additive.labels}
        self._link = Link(dense=1.0, height=1.0, scale=_KL_GUESS, power=1.0)
        self._residual: Residual | None = None
        self._power = 0.5
        self._dense = 1.0
        self._front_costs: Floats = np.zeros((0, len(goal.objectives)))
        self._front_quality: Floats = np.zeros(0)
        self._most = int(np.clip(_KNOWN_WORK // max(1, grid.units), 64, _MOST_KNOWN))

    @property
    def labels(self) -> list[Label]:
        """All single changes."""
        return self._additive.labels

    def fit(self, history: History) -> None:
        """Learn from all trials, then look at the front."""
        scored = history.scored
        best = float(scored.quality_N.max(initial=self._goal.chance))
        dense = best if history.dense is None else history.dense.quality
        self._dense = dense if dense > self._goal.chance else self._goal.chance + 1.0
        rows = self._telling(scored)
        has_divergence = bool(np.isfinite(scored.divergence_N).any())
        self._learn_damage(history, rows)
        guess = (_KL_GUESS if has_divergence or not scored.count else 1.0) ** self._power
        self._learn_quality(scored, rows, guess)
        self.look(history)

    def look(self, history: History) -> None:
        """Take the front as it stands; pending policies count as if they had scored what is expected."""
        scored = history.scored
        costs, quality = scored.costs_NK[scored.front], scored.quality_N[scored.front]
        if history.pending:
            waiting = np.array(list(history.pending.values()), dtype=np.int64)
            costs = np.concatenate([costs, self._grid.estimate(waiting)])
            quality = np.concatenate([quality, self.predict(waiting)[0]])
        self._front_costs, self._front_quality = self._goal.scaled(costs), self._scaled(quality)

    def losses(self) -> list[Floats]:
        """Return the expected damage of each unit's options."""
        table = self._additive.table()
        return [table[unit, :count] for unit, count in enumerate(self._grid.counts)]

    def predict(self, options_NU: Options) -> tuple[Floats, Floats]:
        """Return the expected quality of points and its standard deviation, both (N,)."""
        damage_N, spread_N = self._additive.predict(options_NU)
        mean_N = self._link.quality(damage_N)
        deviation_N = self._link.spread(damage_N, spread_N)
        if self._residual is None:
            return mean_N, deviation_N + 0.01 * self._link.height
        error_N, own_N, unexplained_N = self._residual.predict(options_NU, damage_N)
        # Where scored policies are near, what they say of the error counts for that of the damage as well.
        return mean_N + error_N, np.sqrt(own_N**2 + (unexplained_N * deviation_N) ** 2)

    def glance(self, options_NU: Options) -> Floats:
        """Return a cheap, generous estimate of the gain of points, (N,): every one as unsure as an unknown one."""
        damage_N = self._additive.mean(options_NU)
        mean_N = self._link.quality(damage_N)
        deviation_N = self._link.spread(damage_N, 0.3 * damage_N)
        if self._residual is not None:
            deviation_N = deviation_N + self._residual.prior(damage_N)
        return self._gains(options_NU, mean_N, deviation_N)

    def gains(self, options_NU: Options) -> Floats:
        """Return the expected gain in hypervolume of points, (N,)."""
        return self._gains(options_NU, *self.predict(options_NU))

    def _gains(self, options_NU: Options, mean_N: Floats, deviation_N: Floats) -> Floats:
        costs_NK = self._goal.scaled(self._grid.estimate(options_NU))
        scaled_N, spread_N = self._scaled(mean_N), deviation_N / self._height()
        beyond = _BEYOND_BEST if self._residual is None else self._residual.beyond / self._height()
        best = max(1.0, float(self._front_quality.max(initial=0.0))) + beyond
        if costs_NK.shape[1] == 1:
            front = self._front_costs[:, 0]
            return expected_improvement(costs_NK[:, 0], scaled_N, spread_N, front, self._front_quality, best=best)
        return improvement_by_levels(costs_NK, scaled_N, spread_N, self._front_costs, self._front_quality, best=best)

    def least_sure(self, options_NU: Options) -> npt.NDArray[np.int64]:
        """Return the positions of the points with the largest deviation."""
        spread_N = self.predict(options_NU)[1]
        return np.flatnonzero(spread_N >= spread_N.max() * (1 - 1e-9))

    def _height(self) -> float:
        floor = self._goal.chance
        if self._goal.drop is not None:
            floor = max(floor, self._dense - self._goal.drop)
        return max(self._dense - floor, 1e-9)

    def _scaled(self, quality: Floats) -> Floats:
        return (quality - (self._dense - self._height())) / self._height()

    def _loss(self, quality: Floats, divergence: Floats) -> Floats:
        """Divergence where it is told, else the share of the quality above guessing that is gone; 0 or more."""
        gone = (self._dense - quality) / (self._dense - self._goal.chance)
        found: Floats = np.maximum(np.where(np.isfinite(divergence), divergence, gone), 0.0)
        return found

    def _learn_damage(self, history: History, rows: npt.NDArray[np.int64]) -> None:
        """Set the prior from probes, choose the power under which losses add up, and take all other trials."""
        scored = history.scored
        losses_F = fill_losses(self._grid, self.labels, self._alone(history.alone))
        rows = rows[scored.options_NU[rows].any(axis=1)]
        options_TU = scored.options_NU[rows]
        loss_T = self._loss(scored.quality_N[rows], scored.divergence_N[rows])
        self._power = choose_power(self._additive.design(options_TU), losses_F, loss_T)
        self._additive.fit(
            losses_F**self._power,
            options_TU,
            loss_T**self._power,
            deviation=_PRIOR_DEVIATION,
            common=_PRIOR_COMMON,
            noise=_WHOLE_NOISE,
        )

    def _alone(self, points: dict[bytes, Point]) -> dict[Label, float]:
        found = {}
        for key, point in points.items():
            label = self._places.get(key)
            if label is not None:
                divergence = np.nan if point.divergence is None else point.divergence
                found[label] = float(self._loss(np.array(point.quality), np.array(divergence)))
        return found

    def _learn_quality(self, scored: Scored, rows: npt.NDArray[np.int64], guess: float) -> None:
        options_TU, quality_T = scored.options_NU[rows], scored.quality_N[rows]
        damage_T = self._additive.mean(options_TU)
        height = self._dense - self._goal.chance
        self._link = fit_link(damage_T, quality_T, dense=self._dense, height=height, guess=guess)
        if len(rows):
            error_T = quality_T - self._link.quality(damage_T)
            self._residual = Residual(options_TU, error_T, damage_T, self._link, noise=1e-3 * height)

    def _telling(self, scored: Scored) -> npt.NDArray[np.int64]:
        """Positions of all points, or of too many the ones nearest to the front and the newest."""
        if scored.count <= self._most:
            return np.arange(scored.count)
        front_cost, front_quality = scored.costs_NK[scored.front], scored.quality_N[scored.front]
        lacking = np.full(scored.count, -np.inf)
        for cost, quality in zip(front_cost, front_quality, strict=True):
            is_dearer = np.all(scored.costs_NK >= cost, axis=1)
            lacking[is_dearer] = np.maximum(lacking[is_dearer], (quality - scored.quality_N)[is_dearer])
        newest = self._most // 4
        nearest = np.argsort(lacking[:-newest], kind="stable")[: self._most - newest]
        return np.sort(np.append(nearest, np.arange(scored.count - newest, scored.count)))
