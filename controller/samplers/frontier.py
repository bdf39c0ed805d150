"""The default sampler: knows what policies cost, learns what they lose, and asks where the front gains most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from threadpoolctl import ThreadpoolController

from controller.job import Objective
from controller.samplers.choices import ChoiceGrid, Options, bounds_in_order, costs_in_order, costs_of_study, grid_of
from controller.samplers.context import SamplerContext, want_rung
from controller.samplers.front_model import FrontModel, Goal
from controller.samplers.grid_sampler import GridSampler, distributions_of
from controller.samplers.history import History
from controller.samplers.knapsack import solve_front, weight_sweep
from controller.samplers.probing import plan_probes, point_of

_PROBE_RUNG = 0
_CANDIDATES_WORK = 3_000
"""Candidates x units that are looked at for one proposal."""
_WEIGHED_WORK = 1_000
"""Candidates x units that are weighed with all that is known."""
_MOVES = (1, 1, 1, 2, 2, 3)
"""How many units a move changes, drawn from these."""
_STATES_WORK = 4_000_000
_RESOLVE = 16
"""The model is fitted anew after each trial at first, then each time it has grown by one part in so many."""


class FrontierSampler(GridSampler):
    """Searches the front of quality against costs that are known before a trial.

    1. Every unit is changed alone, along each of its parameters, and scored on few examples (probes).
    2. A surrogate adds the losses up and learns from every trial (see `surrogate.py`).
    3. The multiple-choice knapsack gives the whole front under the surrogate (see `knapsack.py`).
    4. Of its members, and of small moves from policies on the measured front, the one with the largest expected gain
       in hypervolume is proposed. What is pending counts as if it had scored what is expected of it.

    Everything is read from the study's trials, and each proposal draws from a generator of its own, made from the seed
    and the trial's number; so a study that is rebuilt from its rows goes on as it would have.

    In a plain Optuna study nobody reads the note that a trial is a probe: then probes are trials like others.

    Args:
        grid: The space, and its exact costs.
        distributions: The study's distributions, by parameter.
        goal: What counts as a gain.
        seed: Seed of the proposals.
        may_probe: Whether single changes are scored on few examples first; else what was scored must do.

    Reference:
        SPDY, arXiv 2201.13096 (additive losses and exact costs); EvoPress, arXiv 2410.14649 (small moves); Emmerich et
        al. 2006 (expected hypervolume improvement).
    """

    def __init__(
        self,
        grid: ChoiceGrid,
        distributions: Mapping[str, BaseDistribution],
        goal: Goal,
        *,
        seed: int,
        may_probe: bool = True,
    ) -> None:
        super().__init__(distributions, seed)
        self._grid, self._goal = grid, goal
        self._history = History(grid, goal.quality_index)
        self._model = FrontModel(grid, goal)
        planned = plan_probes(grid, self._model.labels) if may_probe else []
        self._probes = [point_of(grid, label) for label in planned]
        self._next = 0
        self._threads = ThreadpoolController()
        self._solved: Options = np.zeros((0, grid.units), dtype=np.int64)
        self._fitted_at = -1
        self._most = int(np.clip(_WEIGHED_WORK // max(1, grid.units), 24, 160))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a point."""
        if not search_space:
            return {}
        self._history.read(study, trial)
        probe = self._next_probe()
        if probe is not None:
            want_rung(study, trial, _PROBE_RUNG)
            return self._grid.parameters(probe)
        generator = self._generator(trial)
        # Matrices are small: threads cost more than they bring, most of all beside busy workers.
        with self._threads.limit(limits=1, user_api="blas"):
            return self._grid.parameters(self._propose(generator))

    def _next_probe(self) -> Options | None:
        """The next single change that nobody has asked for, on a rung or in full."""
        while self._next < len(self._probes):
            probe = self._probes[self._next]
            if probe.tobytes() not in self._history.probed and probe.tobytes() not in self._history.seen:
                return probe
            self._next += 1
        return None

    def _propose(self, generator: np.random.Generator) -> Options:
        self._fit()
        candidates = self._candidates(generator)
        if len(candidates) == 0:
            return self._unseen(generator)
        if len(candidates) > self._most:
            promising = np.argsort(-self._model.glance(candidates), kind="stable")[: self._most]
            candidates = candidates[promising]
        if not self._grid.is_exact:
            candidates = candidates[[bool(self._goal.allows(self._grid.exact(row))) for row in candidates]]
            if len(candidates) == 0:
                return self._unseen(generator)
        gains = self._model.gains(candidates)
        best = np.flatnonzero(gains >= gains.max() * (1 - 1e-9))
        if gains.max() <= 0:
            # Nothing is expected to gain: the least sure of the candidates teaches most.
            best = self._model.least_sure(candidates)
        found: Options = candidates[generator.choice(best)]
        return found

    def _fit(self) -> None:
        finished = self._history.finished
        if self._fitted_at >= 0 and finished - self._fitted_at < max(1, finished // _RESOLVE):
            self._model.look(self._history)
            return
        self._fitted_at = finished
        self._model.fit(self._history)
        states = int(np.clip(_STATES_WORK // (self._grid.units * self._grid.width), 64, 2048))
        losses = self._model.losses()
        scaled = self._goal.scaled(self._grid.increments)
        solutions = []
        for weight in weight_sweep(scaled.shape[-1]):
            weighed = scaled @ weight
            costs = [weighed[unit, :count] for unit, count in enumerate(self._grid.counts)]
            solutions.append(solve_front(costs, losses, most_states=states))
        self._solved = np.unique(np.concatenate(solutions), axis=0)

    def _candidates(self, generator: np.random.Generator) -> Options:
        """Members of the solved front and moves from the measured one, none asked for before, all within bounds."""
        count = int(np.clip(_CANDIDATES_WORK // self._grid.units, 96, 512))
        solved = self._solved
        if len(solved) > count // 2:
            solved = solved[generator.choice(len(solved), count // 2, replace=False)]
        scored = self._history.scored
        parents = np.concatenate([scored.options_NU[scored.front], solved])
        found = np.concatenate([solved, self._moves(parents, count, generator)])
        found = found[self._goal.allows(self._grid.estimate(found))]
        unseen = {key: row for row in found if (key := row.tobytes()) not in self._history.seen}
        return np.array(list(unseen.values()), dtype=np.int64).reshape(len(unseen), self._grid.units)

    def _moves(self, parents: Options, count: int, generator: np.random.Generator) -> Options:
        """Change one to three units of each drawn parent."""
        moved: Options = parents[generator.integers(len(parents), size=count)].copy()
        movable = np.flatnonzero(self._grid.counts > 1)
        if len(movable) == 0:
            return moved
        changes = generator.choice(_MOVES, size=count)
        for turn in range(max(_MOVES)):
            rows = np.flatnonzero(changes > turn)
            units = movable[generator.integers(len(movable), size=len(rows))]
            moved[rows, units] = generator.integers(self._grid.counts[units])
        return moved

    def _unseen(self, generator: np.random.Generator) -> Options:
        """A point that was not asked for, as cheap as the bounds ask; any point where there is none."""
        point: Options = generator.integers(self._grid.counts)
        for _ in range(64):
            if point.tobytes() not in self._history.seen and self._goal.allows(self._grid.estimate(point)):
                break
            point = generator.integers(self._grid.counts)
        return point


def make_frontier(context: SamplerContext) -> BaseSampler:
    """Make the sampler for a study."""
    grid = grid_of(context)
    distributions = distributions_of(context.space)
    return FrontierSampler(grid, distributions, _goal(context), seed=context.seed, may_probe=context.may_probe)


def _goal(context: SamplerContext) -> Goal:
    named = costs_of_study(context)
    return Goal(
        quality_index=context.objectives.index(Objective.QUALITY),
        objectives=tuple(number for number, cost in enumerate(named) if cost in context.objectives),
        reference=np.array(costs_in_order(context.cost_of(context.space.dense_policy()), named)),
        bounds=np.array(bounds_in_order(context.constraints, named)),
        chance=context.chance_quality,
        drop=context.constraints.max_quality_drop,
    )
