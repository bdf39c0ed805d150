"""What the sampler hears of the trials: their objectives, broken constraints, and how well they are known."""

from collections.abc import Iterable

from controller.outcome import broken_constraints, objective_values
from controller.proposer import Proposal, Proposer, Told
from controller.storage.records import TrialRecord, TrialState
from controller.study_config import StudyConfig


class Feedback:
    """Tells the sampler what became of its proposals, in this run and in earlier ones.

    Args:
        config: The study.
        proposer: Has the sampler.
    """

    def __init__(self, config: StudyConfig, proposer: Proposer) -> None:
        self._config = config
        self._proposer = proposer

    def tell(self, trial: TrialRecord, proposal: Proposal, dense_quality: float | None) -> None:
        """Tell what became of a proposal."""
        told = self._told(trial, dense_quality)
        if told.values is None:
            self._proposer.tell_failure(proposal)
        else:
            self._proposer.tell(proposal, told.values, told.violations, share=told.share, divergence=told.divergence)

    def restore(self, trials: Iterable[TrialRecord], dense_quality: float | None) -> None:
        """Tell what an earlier run found, in the order in which it was proposed."""
        self._proposer.restore([self._told(trial, dense_quality) for trial in trials if trial.state.is_finished])

    def _told(self, trial: TrialRecord, dense_quality: float | None) -> Told:
        failed = trial.state is TrialState.FAIL
        return Told(
            policy=trial.policy,
            values=None if failed else objective_values(trial, self._config),
            violations=broken_constraints(trial, self._config, dense_quality),
            attributes=trial.sampler_attributes,
            share=trial.share,
            divergence=trial.kl_to_dense,
        )
