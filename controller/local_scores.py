"""Scores policies in this process: what anybody has paid for is taken from the database."""

import time
from collections.abc import Callable

from controller.guard import evaluate_guarded
from controller.results import Progress
from controller.storage.quality import QualityStore
from evaluators.scores import Quality
from search_spaces.policy import Policy
from workers.protocol import Split, TrialFailure, TrialRequest, Worker

_STAGE_EVERY_S = 2.0


class Stages:
    """Reports what is going on: at the start of a stage, at its end, and now and then between.

    Args:
        on_progress: Who is told.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._stage, self._reported = "", 0.0

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Report a stage.

        Args:
            stage: What is going on.
            done: Steps done.
            total: Steps in all; 0 where that means nothing.
        """
        now = time.monotonic()
        if stage == self._stage and done < total and now - self._reported < _STAGE_EVERY_S:
            return
        self._stage, self._reported = stage, now
        counted = f"{stage} ({done} of {total})" if total else stage
        self._on_progress(Progress(stage=counted, elapsed_s=now - self._started))


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
