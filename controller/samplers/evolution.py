"""Evolution at constant cost: one policy for each cost target, changed by switching levels between units."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from controller.job import Objective
from controller.samplers.budget import CostBudget
from controller.samplers.choices import Options
from controller.samplers.context import SamplerContext, divergence_of, share_of, want_rung
from controller.samplers.generation import STAGES, Generation, Move, Score
from controller.samplers.grid_sampler import GridSampler, distributions_of
from controller.samplers.level_switch import switch_levels
from controller.samplers.trial_feed import TrialFeed

NOTE = "evolution:generation"
"""System attribute of a trial: number of its generation, index of the cost target, stage."""

_TARGETS = 10
_TRIES = 8
_FROM_NEIGHBOUR = 0.25
_BROKEN_WEIGHT = 4
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parent:
    options: Options
    score: Score
    costs: tuple[float, ...]
    is_broken: bool

    @property
    def order(self) -> tuple[bool, float, float, tuple[float, ...]]:
        """Smaller is better: constraints met, then quality, then divergence, then cost."""
        return (self.is_broken, -self.score.quality, self.score.divergence or 0.0, self.costs)


class EvolutionSampler(GridSampler):
    """Keeps the best known policy for each of several cost targets and improves it.

    The target that was visited least goes next, and among those the one beside the widest gap of the front. Its policy
    gets sixteen offspring by level switches at the target's cost. They are scored on the fewest examples, the best
    four on a quarter of them, and the best one on all. It replaces its parent, and those of dearer targets, if it is
    better.

    All of this is read from the study's trials, among them what the sampler noted about each. Each proposal draws from
    a generator of its own, made from the seed and the trial's number. While the trials of one generation are running,
    others start. No proposal breaks a bound on costs, unless every policy of the space does. In a plain Optuna study
    nobody reads the note about examples; then four offspring of each generation are scored, and that is all.

    Args:
        context: Space, costs, objectives and bounds.

    Reference:
        Sieberling et al., "EvoPress: Accurate dynamic model compression via evolutionary search", arXiv 2410.14649.
    """

    def __init__(self, context: SamplerContext) -> None:
        super().__init__(distributions_of(context.space), context.seed)
        self._quality_index = context.objectives.index(Objective.QUALITY)
        self._feed = TrialFeed()
        self._budget = CostBudget(context)
        self._targets = self._budget.targets(context, _TARGETS)
        self._parents: list[_Parent | None] = [None] * len(self._targets)
        self._visits = [0] * len(self._targets)
        self._open: dict[int, Generation] = {}
        self._started = 0
        self._seen: set[bytes] = set()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a policy, and note which generation and stage it belongs to."""
        if not search_space:
            return {}
        generator = self._generator(trial)
        ended, running = self._feed.advance(study, trial)
        for found in ended:
            self._take(found)
        generation, stage, options = self._choose(running, generator)
        study._storage.set_trial_system_attr(trial._trial_id, NOTE, [generation.number, generation.target, stage])
        if stage < STAGES - 1:
            want_rung(study, trial, generation.rung(stage))
        return self._budget.grid.parameters(options)

    def _take(self, trial: FrozenTrial) -> None:
        """Learn from a trial that has ended."""
        options = self._budget.grid.read(trial.params)
        if options is None:
            return
        self._seen.add(options.tobytes())
        score = self._score(trial)
        place = self._place(trial)
        if place is not None:
            generation, stage = place
            generation.take(stage, options.tobytes(), score)
        if score is not None and score.is_whole:
            self._enter(options, score, is_broken=any(value > 0 for value in trial.constraints.values()))

    def _score(self, trial: FrozenTrial) -> Score | None:
        if trial.state is not TrialState.COMPLETE:
            return None
        quality = float(trial.values[self._quality_index])
        if not np.isfinite(quality):
            return None
        return Score(quality=quality, divergence=divergence_of(trial), share=share_of(trial))

    def _place(self, trial: FrozenTrial) -> tuple[Generation, int] | None:
        """Return the generation and the stage that a trial belongs to; None where another sampler proposed it."""
        note = trial.system_attrs.get(NOTE)
        if note is None:
            return None
        number, target, stage = note
        if number not in self._open:
            self._open[number] = Generation(number=number, target=target)
            self._visits[target] += 1
            self._started = max(self._started, number + 1)
        return self._open[number], stage

    def _enter(self, options: Options, score: Score, *, is_broken: bool) -> None:
        """Let a policy that was scored in full be a parent wherever it is the best that the target can pay for."""
        budget = self._budget
        costs = budget.grid.estimate(options) if budget.grid.is_exact else budget.grid.exact(options)
        costs = costs * (1 - _ROUNDING)
        if (costs > budget.bounds_A).any():
            return
        for index, target in enumerate(self._targets):
            if costs[target.axis] > target.value:
                continue
            found = _Parent(options=options, score=score, costs=(float(costs[target.axis]),), is_broken=is_broken)
            holder = self._parents[index]
            if holder is None or found.order < holder.order:
                self._parents[index] = found

    def _choose(self, running: list[FrozenTrial], generator: np.random.Generator) -> tuple[Generation, int, Options]:
        pending: dict[int, list[list[bytes]]] = {}
        for trial in running:
            options = self._budget.grid.read(trial.params)
            if options is not None and (place := self._place(trial)) is not None:
                self._seen.add(options.tobytes())
                pending.setdefault(place[0].number, [[] for _ in range(STAGES)])[place[1]].append(options.tobytes())
        nothing: list[list[bytes]] = [[] for _ in range(STAGES)]
        for number in sorted(self._open):
            found = self._continue(self._open[number], pending.get(number, nothing), generator)
            if found is not None:
                return (self._open[number], *found)
            if self._open[number].next_step(pending.get(number, nothing)).move is Move.END:
                del self._open[number]
        return self._start(generator)

    def _continue(
        self, generation: Generation, pending: list[list[bytes]], generator: np.random.Generator
    ) -> tuple[int, Options] | None:
        """Return the stage and the policy of a generation's next trial; None where it has none now."""
        step = generation.next_step(pending)
        if step.move is Move.OFFSPRING:
            options = self._offspring(generation.target, generator)
            if options is not None:
                return 0, options
            generation.is_used_up = True
            step = generation.next_step(pending)
        if step.move is Move.PROMOTE:
            return step.stage, np.frombuffer(step.key, dtype=np.int64)
        return None

    def _start(self, generator: np.random.Generator) -> tuple[Generation, int, Options]:
        """Begin a generation at the target that comes next, and has something new."""
        order = self._order_of_targets()
        for target in order:
            options = self._offspring(target, generator)
            if options is not None:
                return Generation(number=self._started, target=target), 0, options
        # All was seen, as far as a few draws tell: the study answers a repeat by what it knows.
        repeat = self._budget.draw(self._targets[order[0]], generator)
        return Generation(number=self._started, target=order[0]), 0, repeat

    def _order_of_targets(self) -> list[int]:
        """Return the targets in the order in which to visit them: the least visited first, then the widest gap."""
        gaps = self._gaps()

        def order(index: int) -> tuple[float, float, int]:
            parent = self._parents[index]
            # What breaks a constraint on quality will seldom stop doing so at the same cost.
            weight = _BROKEN_WEIGHT if parent is not None and parent.is_broken else 1
            return (weight * self._visits[index], -gaps[index], index)

        return sorted(range(len(self._targets)), key=order)

    def _gaps(self) -> list[float]:
        """Return for each target the area between it and its neighbours on the axis, relative to the dense cost."""
        found = [0.0] * len(self._targets)
        for left, right in zip(range(len(found)), range(1, len(found)), strict=False):
            near, far = self._targets[left], self._targets[right]
            if near.axis != far.axis:
                continue
            low, high = self._parents[left], self._parents[right]
            rise = high.score.quality - low.score.quality if low is not None and high is not None else 1.0
            area = rise * (far.value - near.value) / float(self._budget.dense_A[near.axis])
            found[left] += area
            found[right] += area
        return found

    def _offspring(self, index: int, generator: np.random.Generator) -> Options | None:
        """Return a child at a target that was not proposed before; None where a few tries find none."""
        target = self._targets[index]
        for attempt in range(_TRIES):
            parent = self._parents[self._family(index, generator)] or self._parents[index]
            # Where the neighbourhood is used up, a fresh draw leads out of it.
            if parent is None or attempt >= _TRIES // 2:
                options = self._budget.draw(target, generator)
            else:
                options = switch_levels(self._budget, parent.options, target, generator)
            if options.tobytes() not in self._seen:
                return options
        return None

    def _family(self, index: int, generator: np.random.Generator) -> int:
        """Return the target whose policy is the parent: mostly the same one, sometimes a neighbour on its axis."""
        if generator.random() >= _FROM_NEIGHBOUR:
            return index
        near = [i for i in (index - 1, index + 1) if 0 <= i < len(self._targets)]
        near = [i for i in near if self._targets[i].axis == self._targets[index].axis] or [index]
        return int(near[generator.integers(len(near))])


def make_evolution(context: SamplerContext) -> BaseSampler:
    """Make the sampler for a study."""
    return EvolutionSampler(context)
