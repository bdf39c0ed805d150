"""A small policy-gradient controller that walks the units in order and spends a cost target."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from controller.job import Objective
from controller.samplers.budget import CostBudget
from controller.samplers.choices import Floats, Options
from controller.samplers.context import SamplerContext, share_of
from controller.samplers.episode import MOVING_FEATURES, Walk, unit_features
from controller.samplers.grid_sampler import GridSampler, distributions_of
from controller.samplers.policy_network import Batch, PolicyNetwork
from controller.samplers.sensitivity import SensitivityEstimate
from controller.samplers.trial_feed import TrialFeed

NOTE = "reinforce:episode"
"""System attribute of a trial: seed of the network's first weights, index of the cost target."""

_TARGETS = 24
_STRIDE = 7  # has no factor in common with the number of targets, so that all have their turn
_BATCH = 8
_TRIES = 4
_COST_WEIGHT = 0.1
_PENALTY = 2.0
_MEMORY = 0.8
_MOST_ADVANTAGE = 3.0


@dataclass(slots=True)
class _Baselines:
    """Moving mean of the reward at each target, and moving spread around it over all of them."""

    means: dict[int, float] = field(default_factory=dict)
    spread: float = 0.0

    def advantage(self, target: int, reward: float) -> float:
        """Return how much better than expected a reward is, in units of the spread, and remember it."""
        near = min(self.means, key=lambda known: (abs(known - target), known), default=None)
        expected = reward if near is None else self.means[near]
        surprise = reward - expected
        held = self.means.get(target)
        self.means[target] = expected + (1 - _MEMORY) * surprise if held is not None else (expected + reward) / 2
        self.spread = _MEMORY * self.spread + (1 - _MEMORY) * abs(surprise) if self.spread else abs(surprise)
        if self.spread <= 1e-9:
            return 0.0
        return float(np.clip(surprise / self.spread, -_MOST_ADVANTAGE, _MOST_ADVANTAGE))


class ReinforceSampler(GridSampler):
    """Learns by policy gradient how to spend a cost target.

    An episode goes over the units in order. Its state is the unit (kind, position, groups, parameters, how sensitive
    the study's trials say it is), the target, the cost that is left and what the last step cost; an action is a keep
    and a format at once, those being closed that the rest of the units could not make up for. The reward is the
    quality, less a price for cost that is higher at tighter targets, less a strong penalty where a constraint is
    broken. Every eight scored episodes are a batch, compared with a moving baseline of their target. Targets are
    spread over the front, and each episode has the next one.

    The walk has a prior: what says least beside that the target is spent. Without it hundreds of trials would teach
    only what policies cost, which is known.

    After a restart the network is built anew: it gets the first weights that the earliest note names, and learns from
    the study's trials in their order. The walks draw from generators made from the seed and the trial's number.

    Args:
        context: Space, costs, objectives and bounds.

    Reference:
        Williams, Machine Learning 8, 1992; Zoph and Le, arXiv 1611.01578 (a controller that chooses in order); HAQ,
        arXiv 1811.08886 (budgets by closing actions, cost from a table).
    """

    def __init__(self, context: SamplerContext) -> None:
        self._context = context
        super().__init__(distributions_of(context.space), context.seed)
        self._quality_index = context.objectives.index(Objective.QUALITY)
        self._feed = TrialFeed()
        self._budget = CostBudget(context)
        self._targets = self._budget.targets(context, _TARGETS)
        self._walks: dict[int, Walk] = {}
        self._features = unit_features(context.space)
        self._sensitivity = SensitivityEstimate(self._budget.grid.units)
        self._baselines = _Baselines()
        self._network_seed: int | None = None
        self._network: PolicyNetwork | None = None
        self._best_quality = -np.inf
        self._fixed_US = self._fixed_features()
        self._batch: list[tuple[int, Options, float]] = []
        self._seen: set[bytes] = set()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a policy, and note what the network must know to learn from it."""
        if not search_space:
            return {}
        generator = self._generator(trial)
        ended, running = self._feed.advance(study, trial)
        for found in ended:
            self._take(found)
        self._seen.update(
            options.tobytes() for t in running if (options := self._budget.grid.read(t.params)) is not None
        )
        if self._network_seed is None:
            self._network_seed = self._context.seed
        index = _STRIDE * trial.number % len(self._targets)
        options = self._sample(index, generator)
        study._storage.set_trial_system_attr(trial._trial_id, NOTE, [self._network_seed, index])
        return self._budget.grid.parameters(options)

    def _sample(self, index: int, generator: np.random.Generator) -> Options:
        """Return a policy for a target that was not proposed before, as far as one is found."""
        network = self._learner()
        for attempt in range(_TRIES):
            near = (index + attempt) % len(self._targets)
            options = self._walk(near).sample(network, self._fixed_US, generator)
            if options.tobytes() not in self._seen:
                break
        return options

    def _take(self, trial: FrozenTrial) -> None:
        """Learn from a trial that has ended."""
        options = self._budget.grid.read(trial.params)
        if options is None:
            return
        self._seen.add(options.tobytes())
        if trial.state is not TrialState.COMPLETE:
            return
        quality = float(trial.values[self._quality_index])
        if not np.isfinite(quality):
            return
        self._best_quality = max(self._best_quality, quality)
        self._sensitivity.add(self._saved(options), quality, share_of(trial))
        note = trial.system_attrs.get(NOTE)
        if note is None:
            return
        seed, index = note
        if self._network_seed is None:
            self._network_seed = seed
        is_broken = any(value > 0 for value in trial.constraints.values())
        self._batch.append((index, options, self._reward(index, options, quality, is_broken=is_broken)))
        if len(self._batch) >= _BATCH:
            self._learn()

    def _reward(self, index: int, options: Options, quality: float, *, is_broken: bool) -> float:
        """Quality from chance (0) to the best that was seen (1), less the price of cost and the penalty."""
        chance = self._context.chance_quality
        spread = self._best_quality - chance
        worth = (quality - chance) / spread if spread > 0 else 0.0
        target = self._targets[index]
        dense = float(self._budget.dense_A[target.axis])
        price = _COST_WEIGHT * max(0.0, 1 - target.value / dense)
        return worth - price * float(self._budget.totals(options)[target.axis]) / dense - _PENALTY * is_broken

    def _learn(self) -> None:
        advantages = [self._baselines.advantage(index, reward) for index, _, reward in self._batch]
        traces = [self._walk(index).retrace(options) for index, options, _ in self._batch]
        self._learner().learn(
            Batch(
                fixed_US=self._fixed_US,
                moving_BUD=np.array([trace.moving_UD for trace in traces]),
                prior_BUC=np.array([trace.prior_UC for trace in traces]),
                actions_BU=np.array([trace.actions_U for trace in traces]),
                advantages_B=np.array(advantages),
            )
        )
        self._batch = []
        self._fixed_US = self._fixed_features()

    def _learner(self) -> PolicyNetwork:
        if self._network is None:
            assert self._network_seed is not None
            units, features = self._fixed_US.shape
            self._network = PolicyNetwork(
                units=units,
                fixed=features,
                moving=MOVING_FEATURES,
                actions=self._budget.grid.width,
                seed=self._network_seed,
            )
        return self._network

    def _walk(self, index: int) -> Walk:
        if index not in self._walks:
            self._walks[index] = Walk(self._budget, self._targets[index])
        return self._walks[index]

    def _saved(self, options: Options) -> Floats:
        """Share of each unit's largest cost that a policy saves, on the axis of the first target."""
        axis = self._targets[0].axis
        costs_UC = self._budget.costs_UCA[..., axis]
        most_U = np.where(self._budget.offered, costs_UC, -np.inf).max(axis=1)
        least_U = np.where(self._budget.offered, costs_UC, np.inf).min(axis=1)
        spread_U = np.where(most_U > least_U, most_U - least_U, 1.0)
        found: Floats = (most_U - costs_UC[np.arange(len(options)), options]) / spread_U
        return found

    def _fixed_features(self) -> Floats:
        return np.concatenate([self._features, self._sensitivity.sensitivities()[:, None]], axis=1)


def make_reinforce(context: SamplerContext) -> BaseSampler:
    """Make the sampler for a study."""
    return ReinforceSampler(context)
