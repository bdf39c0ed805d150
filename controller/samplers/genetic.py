"""Optuna's genetic samplers at a cost that does not grow with the trials that a study has."""

from collections import Counter
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler
from optuna.trial import FrozenTrial, TrialState

from controller.samplers.trial_feed import TrialFeed


class _Remembering(BaseGASampler):
    """Goes before one of Optuna's genetic samplers, and remembers what that one finds out anew from all trials.

    That is which parameters there are, how far the newest generation is, and who its parents were. All of it is as
    Optuna has it.

    Args:
        distributions: The study's distributions, by parameter.
        options: Those of Optuna's sampler.
    """

    def __init__(self, distributions: dict[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        # As in Optuna's, what has but one value is not crossed.
        self._distributions = {name: found for name, found in distributions.items() if not found.single()}
        self._feed = TrialFeed()
        self._sizes: Counter[int] = Counter()
        self._parents: dict[int, list[FrozenTrial]] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all parameters that have a choice: every proposal has the same ones."""
        return self._distributions

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """Return the generation of a trial; a new one is of the newest that is not full."""
        key = self._get_generation_key()
        if key in trial.system_attrs:
            return int(trial.system_attrs[key])
        ended, _ = self._feed.advance(study, trial)
        self._sizes.update(t.system_attrs.get(key, -1) for t in ended if t.state is TrialState.COMPLETE)
        newest = max(0, *self._sizes, 0)
        assert self.population_size is not None
        generation = newest + int(self._sizes[newest] >= self.population_size)
        study._storage.set_trial_system_attr(trial._trial_id, key, generation)
        return generation

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return the trials that a generation descends from."""
        if generation not in self._parents:
            selected = super().get_parent_population(study, generation)
            # Optuna returns them as selected the first time, and in order of their numbers from then on.
            self._parents = {generation: super().get_parent_population(study, generation)}
            return selected
        return self._parents[generation]


# Optuna notes generations under the name of the class, and studies are continued by what was noted.
class NSGAIISampler(_Remembering, optuna.samplers.NSGAIISampler):
    """NSGA-II of Optuna."""


class NSGAIIISampler(_Remembering, optuna.samplers.NSGAIIISampler):
    """NSGA-III of Optuna."""
