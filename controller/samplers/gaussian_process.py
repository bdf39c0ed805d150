"""Optuna's Gaussian process sampler on trials that do not all know the same."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import FrozenTrial, create_trial

from controller.samplers.context import SamplerContext, share_of

_STARTUP = 10


class GaussianProcessSampler(GPSampler):
    """`optuna.samplers.GPSampler`, which needs the same constraints in every trial.

    A trial that was never scored, as its costs alone break a constraint, says nothing about the constraint on quality.
    Optuna refuses such studies. Here it counts as if it were just met: that neither draws nor repels. Qualities of few
    examples are left out.
    """

    def _sample_relative_impl(
        self,
        study: optuna.Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        whole = [trial for trial in completed_trials if share_of(trial) >= 1]
        if len(whole) < _STARTUP:
            return {}
        return super()._sample_relative_impl(study, same_constraints(whole), running_trials, search_space)


def same_constraints(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials with every constraint that one of them has, at 0 where a trial has it not."""
    names = sorted({name for trial in trials for name in trial.constraints})
    return [trial if list(trial.constraints) == names else _with_constraints(trial, names) for trial in trials]


def _with_constraints(trial: FrozenTrial, names: Sequence[str]) -> FrozenTrial:
    known = trial.constraints
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        constraints={name: known.get(name, 0.0) for name in names},
    )


def make_gp(context: SamplerContext) -> BaseSampler:
    """Gaussian process with expected hypervolume improvement; running trials count with what is expected of them.

    Time per proposal grows with the cube of the trials, and with the parameters: for small spaces only.

    Reference:
        Daulton et al., "Differentiable expected hypervolume improvement for parallel multi-objective Bayesian
        optimization", arXiv 2006.05078; Ament et al., "Unexpected improvements to expected improvement for Bayesian
        optimization", arXiv 2310.20708.
    """
    return GaussianProcessSampler(seed=context.seed, n_startup_trials=_STARTUP, warn_independent_sampling=False)
