"""The trials of a study in memory: counts, what waits, which policies are known, and how much is left of the budget."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.progress import counted_share
from controller.storage.records import TrialRecord, TrialRole, TrialState
from controller.study_config import StudyConfig
from evaluators.scores import Costs
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace

DENSE = 0
"""Number of the trial that scores the dense model."""
_FREE_PER_TRIAL = 10
_FREE_AT_LEAST = 100
_TOLERANCE = 1e-6
"""Shares of trials do not add up to whole numbers exactly."""


def baseline_trials(space: SearchSpace, cost_of: Callable[[Policy], Costs]) -> list[TrialRecord]:
    """Return the first trials of a study, none of them scored yet: the dense model and the uniform policies."""
    policies = {"dense": space.dense_policy(), **space.uniform_policies()}
    return [
        TrialRecord(
            number=number,
            role=TrialRole.BASELINE,
            name=name,
            policy=policy,
            state=TrialState.WAITING,
            costs=cost_of(policy),
        )
        for number, (name, policy) in enumerate(policies.items(), start=DENSE)
    ]


def first_trials(
    space: SearchSpace, cost_of: Callable[[Policy], Costs], policies: Iterable[Policy], *, most: int
) -> list[TrialRecord]:
    """Return the baselines, and behind them some policies that are to be scored first.

    Args:
        space: The search space.
        cost_of: Costs of a policy.
        policies: What is to be scored first; baselines and repeats among them are left out.
        most: How many of them at most.
    """
    baselines = baseline_trials(space, cost_of)
    known = {trial.policy.digest for trial in baselines}
    further = {policy.digest: policy for policy in policies if policy.digest not in known}
    numbered = enumerate(list(further.values())[:most], start=len(baselines))
    return baselines + [
        TrialRecord(
            number=number,
            role=TrialRole.TRIAL,
            name=f"{TrialRole.TRIAL} {number}",
            policy=policy,
            state=TrialState.WAITING,
            costs=cost_of(policy),
        )
        for number, policy in numbered
    ]


class TrialLedger:
    """Keeps the trials of a study, and counts them as they come.

    Args:
        trials: What the database holds.
        config: The study.
        contains: Whether a policy lies within the search space.
    """

    def __init__(self, trials: Iterable[TrialRecord], config: StudyConfig, contains: Callable[[Policy], bool]) -> None:
        self._config = config
        self._contains = contains
        self._trials: dict[int, TrialRecord] = {}
        self._known: dict[tuple[str, int | None], int] = {}
        self._waiting: deque[int] = deque()
        self._seen = 0
        self._counted = 0.0
        self._free = 0
        for trial in sorted(trials, key=lambda t: t.number):
            self.put(_dense_again(trial))
        unfinished = (trial for trial in self.trials if not trial.state.is_finished)
        # What was interrupted goes first.
        self._waiting.extend(t.number for t in sorted(unfinished, key=lambda t: (t.started is None, t.number)))

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, number: int) -> TrialRecord:
        return self._trials[number]

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials in order of their numbers."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def dense(self) -> TrialRecord:
        """The trial that scores the dense model."""
        return self._trials[DENSE]

    @property
    def waiting(self) -> int:
        """How many trials wait for a worker."""
        return len(self._waiting)

    @property
    def left(self) -> int:
        """Trials that may still be proposed, as far as the number that the job asks for goes; a part counts as one."""
        return max(0, math.ceil(self._config.trials - self._counted - _TOLERANCE))

    @property
    def may_propose(self) -> bool:
        """Whether the sampler may be asked: trials are left, some policy is new, and not too many answers were free."""
        return (
            self.left > 0
            and self._free < max(_FREE_AT_LEAST, _FREE_PER_TRIAL * self._config.trials)
            and self._seen < self._config.space.size
        )

    def want(self, trials: int) -> None:
        """Take another number of trials as the one that is asked for."""
        self._config = replace(self._config, trials=trials)

    def put(self, trial: TrialRecord) -> None:
        """Add a trial, or replace what is known of it; a role, a rung or a policy never changes."""
        before = self._trials.get(trial.number)
        if before is not None:
            self._count(before, -1)
        elif (key := (trial.policy.digest, trial.rung)) not in self._known and trial.repeat_of is None:
            self._known[key] = trial.number
            # What was only probed is still to be seen.
            self._seen += trial.rung is None and self._contains(trial.policy)
        self._trials[trial.number] = trial
        self._count(trial, 1)

    def earlier(self, policy: Policy, rung: int | None) -> TrialRecord | None:
        """Return the trial that answers for the policy on a rung, or None; one on all examples answers for any rung."""
        whole = self._known.get((policy.digest, None))
        if rung is None or (whole is not None and self._trials[whole].state is TrialState.COMPLETE):
            number = whole
        else:
            number = self._known.get((policy.digest, rung))
        return None if number is None else self._trials[number]

    def draw_again(self) -> None:
        """Note a proposal that was neither recorded nor scored."""
        self._free += 1

    def next_waiting(self) -> TrialRecord | None:
        """Take the next trial that may start, or return None; until the dense model is scored nothing else may."""
        if not self._waiting:
            return None
        if DENSE in self._waiting:
            self._waiting.remove(DENSE)
            return self.dense
        return self._trials[self._waiting.popleft()] if self.dense.state.is_finished else None

    def wait_again(self, trial: TrialRecord) -> None:
        """Put a trial in front of all that wait."""
        self.put(replace(trial, state=TrialState.WAITING))
        self._waiting.appendleft(trial.number)

    def _count(self, trial: TrialRecord, sign: int) -> None:
        share = counted_share(trial, self._config.examples)
        self._counted += sign * share
        if share == 0 and trial.role is not TrialRole.BASELINE:
            self._free += sign


def _dense_again(trial: TrialRecord) -> TrialRecord:
    """Let a dense model that failed in an earlier run be scored again: nothing can be searched without it."""
    if trial.number != DENSE or trial.state is not TrialState.FAIL:
        return trial
    return replace(trial, state=TrialState.WAITING, reason=None, message=None, finished=None, attempts=0)
