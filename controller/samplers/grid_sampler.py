"""What samplers over a grid of choices have in common: all parameters at once, and a generator for each trial."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from search_spaces.space import SearchSpace


class GridSampler(BaseSampler):
    """Proposes all parameters together; what it draws depends on the seed and the trial's number alone.

    Args:
        distributions: The study's distributions, by parameter.
        seed: Seed of the proposals.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int) -> None:
        self._distributions = dict(distributions)
        self._seed = seed
        self._fallback = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all parameters: they are only ever proposed together."""
        return self._distributions

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter that is not of the grid."""
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)

    def _generator(self, trial: FrozenTrial) -> np.random.Generator:
        digest = hashlib.sha256(f"{self._seed}:{trial.number}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def distributions_of(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the distribution of every parameter of a space."""
    return {name: CategoricalDistribution(options) for name, options in space.parameters().items()}
