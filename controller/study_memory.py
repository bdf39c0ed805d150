"""Where Optuna keeps a study's trials: in memory, at a cost that grows no faster than their parameters do."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class _Distributions(dict[str, BaseDistribution]):
    """What a trial's parameters are drawn from. Distributions never change, so a deep copy shares them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, BaseDistribution]:
        return dict(self)


class StudyMemory(InMemoryStorage):
    """An in-memory storage for studies whose trials have hundreds of parameters, all with the same distributions.

    Optuna's own copies a trial with each parameter that is set, as someone may have read the trial, and what was read
    must not change. So the time of a proposal grows with the square of the parameters. Here a trial is copied only if
    it was read since. Trials with equal distributions share one mapping of them. All else is as in Optuna's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unread: set[int] = set()
        """Trials of which nobody else has the dicts."""
        self._distributions = _Distributions()
        """Those of the newest trial that has all its parameters."""

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set one parameter."""
        with self._lock:
            trial = self._writable(trial_id)
            self._declare(trial_id, {param_name: distribution})
            trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            trial.distributions[param_name] = distribution

    def set_trial_params(
        self, trial_id: int, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
    ) -> None:
        """Set many parameters at once.

        Args:
            trial_id: The trial, running.
            params: Values by parameter.
            distributions: The same parameters' distributions.

        Raises:
            ValueError: A value is none of its distribution, or a distribution is not that of earlier trials.
        """
        internal = {name: distributions[name].to_internal_repr(value) for name, value in params.items()}
        with self._lock:
            trial = self._writable(trial_id)
            self._declare(trial_id, {name: distributions[name] for name in internal})
            for name, value in internal.items():
                trial.params[name] = distributions[name].to_external_repr(value)
                trial.distributions[name] = distributions[name]

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set the state, and of a finished trial the values."""
        with self._lock:
            is_set = super().set_trial_state_values(trial_id, state, values)
            if is_set and state.is_finished():
                self._unread.discard(trial_id)
                # The copy was just made, so nobody has read it.
                trial = self._get_trial(trial_id)
                trial.distributions = self._shared(trial.distributions)
            return is_set

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial, a copy of the template if there is one."""
        with self._lock:
            if template_trial is None:
                return super().create_new_trial(study_id)
            # Optuna's copies it deeply.
            bare = copy.copy(template_trial)
            bare.distributions = {}
            trial_id = super().create_new_trial(study_id, bare)
            self._get_trial(trial_id).distributions = self._shared(template_trial.distributions)
            return trial_id

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial, which later changes leave as it is."""
        with self._lock:
            self._unread.discard(trial_id)
            return super().get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a study, which later changes leave as they are."""
        with self._lock:
            self._unread.clear()
            return super().get_all_trials(study_id, deepcopy, states)

    def _writable(self, trial_id: int) -> FrozenTrial:
        """Return a trial whose parameters may be set in place."""
        trial = self._get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        if trial_id not in self._unread:
            trial = copy.copy(trial)
            trial.params, trial.distributions = dict(trial.params), dict(trial.distributions)
            self._set_trial(trial_id, trial)
            self._unread.add(trial_id)
        return trial

    def _declare(self, trial_id: int, distributions: Mapping[str, BaseDistribution]) -> None:
        """Note the distributions of parameters, and refuse those that earlier trials contradict."""
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        known = self._studies[study_id].param_distribution
        for name, distribution in distributions.items():
            earlier = known.get(name, distribution)
            if earlier is not distribution:
                check_distribution_compatibility(earlier, distribution)
        known.update(distributions)

    def _shared(self, distributions: dict[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        """Return equal distributions, the same mapping for as many trials as possible."""
        if not distributions:
            # A queued trial has none yet.
            return {}
        if distributions != self._distributions or list(distributions) != list(self._distributions):
            self._distributions = _Distributions(distributions)
        return self._distributions
