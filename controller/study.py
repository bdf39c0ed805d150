"""A study: which policy is asked next, what became of every attempt, and when the search is over."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from controller.feedback import Feedback
from controller.ledger import DENSE, TrialLedger, first_trials
from controller.outcome import FailureTally, broken_constraints, check_dense, check_report
from controller.progress import StudyProgress, measure_progress
from controller.proposer import Proposal, Proposer
from controller.racing import Racing
from controller.samplers import make_sampler
from controller.storage.holder import Holder
from controller.storage.lease_keeper import LeaseKeeper
from controller.storage.outbox import DatabaseOutbox
from controller.storage.records import StudyRecord, StudyState, TellOutcome, TrialRecord, TrialRole, TrialState
from controller.storage.repository import Repository
from controller.study_config import (
    DenseModelError,
    StopReason,
    StudyConfig,
    sampler_context,
)
from controller.study_opening import open_record
from evaluators.scores import Costs
from search_spaces.policy import Policy
from workers.protocol import FailureReason, Split, TrialFailure, TrialReport, TrialRequest

_logger = logging.getLogger(__name__)

_MOST_ATTEMPTS = 2
"""A worker may die through no fault of its policy; that a second one dies of the same policy is no chance."""
_FREE_PER_ASK = 25


@dataclass(frozen=True, slots=True)
class _OpenAttempt:
    number: int
    proposal: Proposal


class Study:
    """Drives one study: `ask` hands out policies, `tell` takes what became of them.

    The database is the truth: a trial is written when it is asked and when it is told. Optuna's study lives in memory
    and is built anew from the rows.

    **What counts.** The job's number of trials counts policies that got a score or a failure in this study. A proposal
    that costs nothing to answer does not count: one that repeats an earlier policy, or one whose latency or size alone
    breaks a constraint (recorded as pruned, with how far it is over, and told to the sampler as infeasible). If these
    counted, a tight constraint would eat up the search: where one policy in a hundred is cheap enough, 60 trials would
    score less than one. They must end too, though: after ten of them for each trial that the job asks for (and no
    fewer than a hundred) the study stops as exhausted, and also once every policy of the space was seen.

    **Probes.** A sampler may want a policy scored on a rung of the examples only, to learn from it. Such a probe counts
    the share of the examples that it sees, is told as any other trial, may break constraints, and is never on a front.
    The same policy may still be proposed in full.

    **Racing.** A trial that can't enter the front any more stops early: it is pruned, keeps an estimate of its quality,
    and counts the share of the examples that it took.

    **Order.** The dense model goes first and alone, as all that follows is measured against it; then the uniform
    policies; then whatever the sampler proposes. After a restart, what was interrupted goes first.

    Args:
        config: What to search.
        repository: The database.
        record: The study in it, taken by this controller (see `open`).
        cost_of: Exact costs of a policy.
        on_finished: Called with the study and each trial that has come to its end; must be quick.
    """

    def __init__(
        self,
        config: StudyConfig,
        repository: Repository,
        record: StudyRecord,
        cost_of: Callable[[Policy], Costs],
        on_finished: Callable[["Study", TrialRecord], None] | None = None,
    ) -> None:
        self.config = config
        self._repository = repository
        self._record = record
        self._cost_of = cost_of
        self._on_finished = on_finished
        self._keeper = LeaseKeeper(repository, record)
        self._scores = repository.quality_store(config.evaluation_digest)
        self._open: dict[str, _OpenAttempt] = {}
        self._kept_proposals: dict[int, Proposal] = {}
        self._failures = FailureTally()
        self._stop: StopReason | None = None
        self._started = time.monotonic()
        trials = repository.trials(record.id)
        sampler = make_sampler(config.sampler, sampler_context(config, cost_of), trials_so_far=len(trials))
        self._proposer = Proposer(config.space, config.objectives, sampler)
        self._feedback = Feedback(config, self._proposer)
        self._ledger = TrialLedger(trials, config, self._proposer.contains)
        if self._ledger.dense.state.is_finished:
            check_dense(self._ledger.dense, config)
        self._feedback.restore(self._ledger.trials, self._ledger.dense.quality)
        self._racing = Racing(config, self._scores)
        for trial in self._ledger.trials:
            self._racing.add(trial)

    @classmethod
    def open(
        cls,
        config: StudyConfig,
        repository: Repository,
        cost_of: Callable[[Policy], Costs],
        on_finished: Callable[["Study", TrialRecord], None] | None = None,
        first: Sequence[Policy] = (),
        holder: Holder | None = None,
        say: Callable[[str], None] = _logger.warning,
    ) -> Self:
        """Create the study, or continue the one of that name.

        A new one scores the policies in `first` before its sampler proposes any, as far as its trials suffice. A
        controller on another machine that has the study is waited for until it is heard of, or its lease ends.

        Raises:
            StudyHeldError: Another controller has it.
            StudyConflictError: The study exists, and its trials were scored on something else.
            DenseModelError: The study exists, and its dense model is no better than chance.
            RegistryError: The sampler is unknown.
        """
        record = open_record(
            config,
            repository,
            lambda: first_trials(config.space, cost_of, first, most=config.trials),
            holder=holder,
            say=say,
        )
        return cls(config, repository, record, cost_of, on_finished)

    @property
    def id(self) -> str:
        """Identity of the study in the database."""
        return self._record.id

    @property
    def waits_for(self) -> str | None:
        """What holds the study up, in one line: a database that does not answer. None for nothing."""
        return self._repository.patience.trouble

    @property
    def wanted_parallel(self) -> int | None:
        """Worker slots that were asked for while the study runs; None for what the job says."""
        return self._keeper.controls.parallel

    @property
    def outbox(self) -> DatabaseOutbox:
        """Messages of the study that wait for MLflow."""
        return DatabaseOutbox(self._repository.engine, self.id)

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials in order of their numbers."""
        return self._ledger.trials

    @property
    def running(self) -> int:
        """Attempts that were handed out and not told yet."""
        return len(self._open)

    @property
    def remaining(self) -> int:
        """Trials that may still be handed out, those that do not count apart; a part of one counts as one."""
        return self._ledger.waiting + self._ledger.left

    @property
    def elapsed_s(self) -> float:
        """Seconds since this controller took the study."""
        return time.monotonic() - self._started

    @property
    def stop_reason(self) -> StopReason | None:
        """Why nothing more is asked; None while the search goes on. Attempts may still be open."""
        if self._stop is None:
            timeout_s = self.config.timeout_s
            if timeout_s is not None and self.elapsed_s >= timeout_s:
                self._stop = StopReason.TIMEOUT
            # A trial that is still open may come back for another attempt.
            elif not self._ledger.waiting and not self._open and not self._ledger.may_propose:
                self._stop = StopReason.EXHAUSTED if self._ledger.left else StopReason.TRIALS
        return self._stop

    @property
    def finished(self) -> bool:
        """Whether nothing more is asked and every attempt was told."""
        return self.stop_reason is not None and not self._open

    def ask(self, count: int = 1, *, worker: str = "") -> list[TrialRequest]:
        """Hand out policies to score.

        Args:
            count: How many at most, 1 or more.
            worker: Name of the worker slot, for the record.

        Returns:
            Requests. None of them means: nothing now, unless `finished` says that nothing will come.

        Raises:
            StudyLostError: Another controller has taken the study over.
        """
        requests: list[TrialRequest] = []
        free = 0
        while len(requests) < count and free < _FREE_PER_ASK and self.stop_reason is None:
            waiting = self._ledger.next_waiting()
            if waiting is not None:
                kept = self._kept_proposals.pop(waiting.number, None)
                request = self._begin(waiting, kept or self._proposer.adopt(waiting.policy, waiting.rung), worker)
            elif self._ledger.dense.state.is_finished and self._ledger.may_propose:
                request = self._propose(worker)
            else:
                break
            if request is None:
                free += 1
            else:
                requests.append(request)
        return requests

    def tell(self, result: TrialReport | TrialFailure) -> TellOutcome:
        """Take what became of an attempt. Telling it twice, or too late, changes nothing.

        Raises:
            DenseModelError: The dense model has failed, or is no better than chance.
            TooManyFailuresError: Most trials of this run have failed.
            StudyLostError: Another controller has taken the study over.
        """
        attempt = self._open.get(result.attempt)
        if isinstance(result, TrialReport) and attempt is not None:
            result = check_report(result, self._ledger[attempt.number].costs)
        if isinstance(result, TrialReport):
            return self._tell_scores(result, attempt)
        return self._tell_failure(result, attempt)

    def give_back(self, attempt: str, message: str) -> TellOutcome:
        """Give up an attempt through no fault of its policy; the trial is asked again, and it does not count."""
        outcome = self._repository.interrupt(self._record, attempt, message)
        opened = self._open.pop(attempt, None)
        if outcome is TellOutcome.ACCEPTED and opened is not None:
            trial = self._ledger[opened.number]
            self._kept_proposals[trial.number] = opened.proposal
            self._ledger.wait_again(replace(trial, attempts=trial.attempts - 1))
        return outcome

    def together(self) -> AbstractContextManager[None]:
        """Let all that is asked and told within the block be written at once, at its end."""
        return self._repository.together(self._record)

    def keep(self) -> None:
        """Renew the lease from now on, in the background, and hear what is asked for; `close` ends it."""
        self._keeper.start()

    def heed(self) -> None:
        """Do what was asked for while the study runs: another number of trials, or a stop.

        Raises:
            StudyLostError: Another controller has taken the study over.
        """
        if self._keeper.lost is not None:
            raise self._keeper.lost
        wanted = self._keeper.controls
        if wanted.trials is not None and wanted.trials != self.config.trials:
            self.config = replace(self.config, trials=wanted.trials)
            self._ledger.want(wanted.trials)
        if wanted.stop:
            self.stop()

    def stop(self, within_s: float | None = None) -> None:
        """Ask nothing more.

        Args:
            within_s: Seconds for which a database that does not answer is still waited for; None for no other limit.
        """
        self._stop = self._stop or StopReason.INTERRUPTED
        if within_s is not None:
            self._repository.patience.limit(within_s)

    def close(self) -> None:
        """Give back what is still open, write whether the study is complete, and release it."""
        self._keeper.stop()
        for token in list(self._open):
            self.give_back(token, "the search ended before the result came")
        complete = self._stop in (StopReason.TRIALS, StopReason.EXHAUSTED)
        self._repository.set_state(self._record, StudyState.COMPLETE if complete else StudyState.STOPPED)

    def progress(self) -> StudyProgress:
        """Measure how far the study is."""
        return measure_progress(self.config, self.trials, elapsed_s=self.elapsed_s, stop=self.stop_reason)

    def _propose(self, worker: str) -> TrialRequest | None:
        """Ask the sampler; return None where its proposal needs no worker."""
        proposal = self._proposer.propose()
        earlier = self._ledger.earlier(proposal.policy, proposal.rung)
        if earlier is not None:
            self._repeat(proposal, earlier)
            return None
        number = len(self._ledger)
        role = TrialRole.TRIAL if proposal.rung is None else TrialRole.PROBE
        trial = TrialRecord(
            number=number,
            role=role,
            name=f"{role} {number}",
            policy=proposal.policy,
            rung=proposal.rung,
            state=TrialState.WAITING,
            costs=self._cost_of(proposal.policy),
        )
        violations = broken_constraints(trial, self.config, None)
        if role is TrialRole.TRIAL and any(value > 0 for value in violations.values()):
            self._finish_free(replace(trial, state=TrialState.PRUNED, violations=violations), proposal)
            return None
        return self._begin(trial, proposal, worker)

    def _repeat(self, proposal: Proposal, earlier: TrialRecord) -> None:
        """Answer a proposal by the trial that had the same policy."""
        if earlier.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            # It has failed, or its score is yet to come: there is nothing to record, and the sampler draws again.
            self._ledger.draw_again()
            self._proposer.tell_failure(proposal)
            return
        number = len(self._ledger)
        role = TrialRole.TRIAL if proposal.rung is None else TrialRole.PROBE
        repeat = replace(
            earlier,
            number=number,
            role=role,
            name=f"{role} {number}",
            rung=proposal.rung,
            repeat_of=earlier.number,
            attempt=None,
            attempts=0,
            started=None,
        )
        self._finish_free(repeat, proposal)

    def _finish_free(self, trial: TrialRecord, proposal: Proposal) -> None:
        """Record a trial that needs no worker."""
        now = datetime.now(UTC)
        trial = replace(
            trial,
            sampler_attributes=self._proposer.attributes(proposal),
            started=trial.started or now,
            finished=now,
        )
        self._repository.put_trial(self._record, trial)
        self._finish(trial, proposal)

    def _begin(self, trial: TrialRecord, proposal: Proposal, worker: str) -> TrialRequest | None:
        """Start an attempt; return None where the score was paid for before, in this study or another."""
        paid = self._scores.get(trial.policy.digest, Split.SEARCH, trial.rung)
        if paid is not None:
            self._finish_free(trial.scored(paid), proposal)
            return None
        running = replace(
            trial,
            state=TrialState.RUNNING,
            attempt=uuid.uuid4().hex,
            attempts=trial.attempts + 1,
            sampler_attributes=self._proposer.attributes(proposal),
            started=trial.started or datetime.now(UTC),
        )
        assert running.attempt is not None
        self._repository.start_attempt(self._record, running, worker=worker)
        self._ledger.put(running)
        self._open[running.attempt] = _OpenAttempt(running.number, proposal)
        return TrialRequest(
            trial=running.number,
            attempt=running.attempt,
            policy=running.policy,
            split=Split.SEARCH,
            rung=running.rung,
            bar=self._racing.bar(running),
        )

    def _tell_scores(self, report: TrialReport, attempt: _OpenAttempt | None) -> TellOutcome:
        outcome = self._repository.complete(
            self._record,
            report.attempt,
            report.scores.quality,
            evaluation_digest=self.config.evaluation_digest,
            split=Split.SEARCH,
        )
        self._open.pop(report.attempt, None)
        if outcome is TellOutcome.ACCEPTED and attempt is not None:
            self._failures.scored()
            self._finish(self._ledger[attempt.number].scored(report.scores.quality), attempt.proposal)
        return outcome

    def _tell_failure(self, failure: TrialFailure, attempt: _OpenAttempt | None) -> TellOutcome:
        trial = None if attempt is None else self._ledger[attempt.number]
        died = failure.reason is FailureReason.WORKER_DIED
        retry = died and trial is not None and trial.attempts < _MOST_ATTEMPTS
        outcome = self._repository.fail(
            self._record, failure.attempt, reason=failure.reason, message=failure.message, retry=retry
        )
        self._open.pop(failure.attempt, None)
        if outcome is not TellOutcome.ACCEPTED or attempt is None or trial is None:
            return outcome
        if retry:
            _logger.warning("%s: %s; it is tried once more", trial.name, failure.message)
            self._kept_proposals[trial.number] = attempt.proposal
            self._ledger.wait_again(trial)
            return outcome
        too_many = self._failures.failed(failure)
        failed = replace(
            trial, state=TrialState.FAIL, reason=failure.reason, message=failure.message, finished=datetime.now(UTC)
        )
        self._finish(failed, attempt.proposal)
        if too_many is not None:
            self.stop()
            raise too_many
        return outcome

    def _finish(self, trial: TrialRecord, proposal: Proposal) -> None:
        """Keep a trial that has come to its end, and tell the sampler and whoever listens."""
        self._ledger.put(trial)
        self._racing.add(trial)
        self._feedback.tell(trial, proposal, self._ledger.dense.quality)
        if self._on_finished is not None:
            self._on_finished(self, trial)
        if trial.number == DENSE:
            try:
                check_dense(trial, self.config)
            except DenseModelError:
                self.stop()
                raise
