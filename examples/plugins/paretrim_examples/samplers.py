"""Random moves from the front: of a policy that none beats so far, one or two choices are drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from controller.samplers import SAMPLERS, SamplerContext
from controller.samplers.grid_sampler import GridSampler, distributions_of

AT_RANDOM = 8
"""Policies that are drawn before the first move."""


class NeighbourSampler(GridSampler):
    """Proposes neighbours of policies on the front.

    Args:
        distributions: The study's distributions, by parameter.
        seed: Seed of the proposals.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(distributions, seed)
        self._options = {
            name: distribution.choices
            for name, distribution in distributions.items()
            if isinstance(distribution, CategoricalDistribution)
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a policy."""
        generator = self._generator(trial)
        drawn = {name: options[generator.integers(len(options))] for name, options in self._options.items()}
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        front = study.best_trials if len(finished) >= AT_RANDOM else []
        if not front:
            return drawn
        parent = front[generator.integers(len(front))].params
        names = list(self._options)
        changed = generator.choice(len(names), size=min(len(names), int(generator.integers(1, 3))), replace=False)
        return {**parent, **{names[index]: drawn[names[index]] for index in changed}}


@SAMPLERS.register("neighbours")
def make_neighbours(context: SamplerContext) -> BaseSampler:
    """Make the sampler for a study."""
    return NeighbourSampler(distributions_of(context.space), context.seed)
