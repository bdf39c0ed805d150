"""The Optuna side of a study: policies as parameters of an ask-and-tell study in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from controller.front import MAXIMISED
from controller.job import Objective
from controller.samplers.context import DIVERGENCE, RUNG, SHARE, wanted_rung
from controller.study_memory import StudyMemory
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace

# What Optuna notes for the length of one trial only, or what is told again from the scores.
_PASSING_ATTRIBUTES = ("constraints", "relative_params", "tpe:relative_params", "gp:relative_params", "fixed_params")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A policy that the sampler waits for.

    Attributes:
        policy: The policy.
        trial: Optuna's trial; None where the policy lies outside the space, so that the sampler can't know it.
        rung: Rung that the sampler wants the policy scored on; None for all examples.
    """

    policy: Policy
    trial: Trial | None
    rung: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A finished trial, as the sampler sees it.

    Attributes:
        policy: The policy.
        values: One for each objective; None for a failure.
        violations: Constraint to how far it is broken; 0 or less where it is met.
        attributes: What the sampler had noted about the trial.
        share: Share of the examples behind the quality.
        divergence: Divergence from the dense model in nats; None where it is not known.
    """

    policy: Policy
    values: Sequence[float] | None
    violations: Mapping[str, float]
    attributes: Mapping[str, Any]
    share: float = 1.0
    divergence: float | None = None


class Proposer:
    """Asks a sampler for policies and tells it their scores.

    Args:
        space: What may be proposed.
        objectives: What the values mean.
        sampler: Who proposes.
    """

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], sampler: BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(options) for name, options in space.parameters().items()
        }
        self._memory = StudyMemory()
        self._study = optuna.create_study(
            storage=self._memory,
            directions=["maximize" if objective in MAXIMISED else "minimize" for objective in objectives],
            sampler=sampler,
        )

    def contains(self, policy: Policy) -> bool:
        """Whether the sampler could propose the policy; the dense one may lie outside."""
        return self._space.contains(policy)

    def restore(self, trials: Sequence[Told]) -> None:
        """Give the sampler the trials of an earlier run, in the order in which they were proposed."""
        for told in trials:
            if self.contains(told.policy):
                self._memory.create_new_trial(self._study._study_id, self._frozen(told))

    def propose(self) -> Proposal:
        """Ask the sampler for a policy."""
        trial = self._study.ask()
        if trial.relative_params.keys() == self._distributions.keys():
            self._memory.set_trial_params(trial._trial_id, trial.relative_params, self._distributions)
        else:
            for name, distribution in self._distributions.items():
                trial._suggest(name, distribution)
        found = self._memory.get_trial(trial._trial_id)
        return Proposal(
            policy=self._space.from_parameters(found.params), trial=trial, rung=wanted_rung(found.system_attrs)
        )

    def adopt(self, policy: Policy, rung: int | None = None) -> Proposal:
        """Let the sampler wait for a policy that it did not choose itself, or not in this run."""
        if not self.contains(policy):
            return Proposal(policy=policy, trial=None, rung=rung)
        self._study.enqueue_trial(dict(self._space.to_parameters(policy)))
        trial = self._study.ask(self._distributions)
        # What the sampler has just noted is about a policy that it would have liked better.
        self._memory.set_trial_system_attr(trial._trial_id, RUNG, rung)
        return Proposal(policy=policy, trial=trial, rung=rung)

    def attributes(self, proposal: Proposal) -> dict[str, Any]:
        """Return what the sampler noted about a trial and needs again after a restart (a generation's number)."""
        if proposal.trial is None:
            return {}
        noted = self._noted(proposal.trial)
        return {
            key: value for key, value in noted.items() if value is not None and not key.startswith(_PASSING_ATTRIBUTES)
        }

    def tell(
        self,
        proposal: Proposal,
        values: Sequence[float],
        violations: Mapping[str, float],
        *,
        share: float = 1.0,
        divergence: float | None = None,
    ) -> None:
        """Tell the sampler what a policy scored.

        Args:
            proposal: The policy.
            values: One for each objective.
            violations: Constraint to how far it is broken; 0 or less where it is met.
            share: Share of the examples behind the quality.
            divergence: Divergence from the dense model in nats; None where it is not known.
        """
        if proposal.trial is None:
            return
        for name, value in violations.items():
            proposal.trial.set_constraint(name, value)
        for name, attribute in _user_attributes(share, divergence).items():
            proposal.trial.set_user_attr(name, attribute)
        self._study.tell(proposal.trial, values=list(values))

    def tell_failure(self, proposal: Proposal) -> None:
        """Tell the sampler that a policy has no scores; it learns nothing from it."""
        if proposal.trial is not None:
            self._study.tell(proposal.trial, state=TrialState.FAIL)

    def _noted(self, trial: Trial) -> dict[str, Any]:
        # Optuna shows a trial's system attributes to samplers only, and the way around that copies all trials.
        return self._memory.get_trial(trial._trial_id).system_attrs

    def _frozen(self, told: Told) -> FrozenTrial:
        trial = create_trial(
            state=TrialState.FAIL if told.values is None else TrialState.COMPLETE,
            values=told.values,
            system_attrs=dict(told.attributes),
            user_attrs=_user_attributes(told.share, told.divergence),
            constraints=dict(told.violations) if told.values is not None else None,
        )
        # The space vouches for them; Optuna would check each parameter of each trial, twice.
        trial.params, trial.distributions = dict(self._space.to_parameters(told.policy)), self._distributions
        return trial


def _user_attributes(share: float, divergence: float | None) -> dict[str, Any]:
    """What is told beside the values; what is missing means all examples, or not known."""
    found = {} if share == 1 else {SHARE: share}
    return found if divergence is None else {**found, DIVERGENCE: divergence}
