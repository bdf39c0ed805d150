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
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace

# What Optuna notes for the length of one trial only, or what is told again from the scores.
_PASSING_ATTRIBUTES = ("constraints", "relative_params", "tpe:relative_params", "fixed_params")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A policy that the sampler waits for.

    Attributes:
        policy: The policy.
        trial: Optuna's trial; None where the policy lies outside the space, so that the sampler can't know it.
    """

    policy: Policy
    trial: Trial | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A finished trial, as the sampler sees it.

    Attributes:
        policy: The policy.
        values: One for each objective; None for a failure.
        violations: Constraint to how far it is broken; 0 or less where it is met.
        attributes: What the sampler had noted about the trial.
    """

    policy: Policy
    values: Sequence[float] | None
    violations: Mapping[str, float]
    attributes: Mapping[str, Any]


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
        self._study = optuna.create_study(
            directions=["maximize" if objective in MAXIMISED else "minimize" for objective in objectives],
            sampler=sampler,
        )

    def contains(self, policy: Policy) -> bool:
        """Whether the sampler could propose the policy; the dense one may lie outside."""
        return all(policy[s.unit.name] in s.choices(self._space.base_format) for s in self._space.unit_spaces)

    def restore(self, trials: Sequence[Told]) -> None:
        """Give the sampler the trials of an earlier run, in the order in which they were proposed."""
        self._study.add_trials(self._frozen(told) for told in trials if self.contains(told.policy))

    def propose(self) -> Proposal:
        """Ask the sampler for a policy."""
        trial = self._study.ask(self._distributions)
        return Proposal(policy=self._space.from_parameters(trial.params), trial=trial)

    def adopt(self, policy: Policy) -> Proposal:
        """Let the sampler wait for a policy that it did not choose itself."""
        if not self.contains(policy):
            return Proposal(policy=policy, trial=None)
        self._study.enqueue_trial(dict(self._space.to_parameters(policy)))
        return Proposal(policy=policy, trial=self._study.ask(self._distributions))

    def attributes(self, proposal: Proposal) -> dict[str, Any]:
        """Return what the sampler noted about a trial and needs again after a restart (a generation's number)."""
        if proposal.trial is None:
            return {}
        noted = self._study.get_trials(deepcopy=False)[proposal.trial.number].system_attrs
        return {key: value for key, value in noted.items() if not key.startswith(_PASSING_ATTRIBUTES)}

    def tell(self, proposal: Proposal, values: Sequence[float], violations: Mapping[str, float]) -> None:
        """Tell the sampler what a policy scored."""
        if proposal.trial is None:
            return
        for name, value in violations.items():
            proposal.trial.set_constraint(name, value)
        self._study.tell(proposal.trial, values=list(values))

    def tell_failure(self, proposal: Proposal) -> None:
        """Tell the sampler that a policy has no scores; it learns nothing from it."""
        if proposal.trial is not None:
            self._study.tell(proposal.trial, state=TrialState.FAIL)

    def _frozen(self, told: Told) -> FrozenTrial:
        return create_trial(
            state=TrialState.FAIL if told.values is None else TrialState.COMPLETE,
            values=told.values,
            params=dict(self._space.to_parameters(told.policy)),
            distributions=dict(self._distributions),
            system_attrs=dict(told.attributes),
            constraints=dict(told.violations) if told.values is not None else None,
        )
