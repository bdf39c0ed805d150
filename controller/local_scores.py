"""Scores policies in this process: what anybody has paid for is taken from the database."""

from controller.guard import evaluate_guarded
from controller.storage.quality import QualityStore
from evaluators.scores import Quality
from search_spaces.policy import Policy
from workers.protocol import Split, TrialFailure, TrialRequest, Worker


class LocalScores:
    """Looks a score up, or has it made and keeps it.

    Args:
        worker: Scores what nobody has paid for.
        scores: Where scores are kept.
    """

    def __init__(self, worker: Worker, scores: QualityStore) -> None:
        self._worker, self._scores = worker, scores
        self.made = 0
        """Policies that the worker has scored."""

    def score(self, policy: Policy, rung: int | None = None) -> Quality | TrialFailure:
        """Return the score of a policy on the search split.

        Args:
            policy: The policy.
            rung: Rung of the split, from 0; None for all of it. A score on the whole split serves for its rungs.
        """
        paid = self._scores.get(policy.digest, Split.SEARCH, rung)
        if paid is not None:
            return paid
        outcome = evaluate_guarded(self._worker, TrialRequest(trial=-1, attempt="local", policy=policy, rung=rung))
        if isinstance(outcome, TrialFailure):
            return outcome
        self.made += 1
        self._scores.put(policy.digest, Split.SEARCH, outcome.scores.quality)
        return outcome.scores.quality
