"""The trials of a study in memory: counts, what waits, and which policies are known."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.progress import counts_as_trial
from controller.storage.records import TrialRecord, TrialRole, TrialState
from search_spaces.policy import Policy

DENSE = 0
"""Number of the trial that scores the dense model."""


class TrialLedger:
    """Keeps the trials of a study, and counts them as they come.

    Args:
        trials: What the database holds.
        contains: Whether a policy lies within the search space.
    """

    def __init__(self, trials: Iterable[TrialRecord], contains: Callable[[Policy], bool]) -> None:
        self._contains = contains
        self._trials: dict[int, TrialRecord] = {}
        self._known: dict[str, int] = {}
        self._waiting: deque[int] = deque()
        self.seen = 0
        """Different policies of the space that have a trial."""
        self.counted = 0
        """Trials that count towards the number that the job asks for."""
        self.free = 0
        """Proposals that do not count: repeats and those whose costs alone are too high."""
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

    def put(self, trial: TrialRecord) -> None:
        """Add a trial, or replace what is known of it; a role or a policy never changes."""
        before = self._trials.get(trial.number)
        if before is None:
            if trial.policy.digest not in self._known:
                self._known[trial.policy.digest] = trial.number
                self.seen += self._contains(trial.policy)
        else:
            self._count(before, -1)
        self._trials[trial.number] = trial
        self._count(trial, 1)

    def earlier(self, policy: Policy) -> TrialRecord | None:
        """Return the first trial of the policy, or None."""
        number = self._known.get(policy.digest)
        return None if number is None else self._trials[number]

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
        if counts_as_trial(trial):
            self.counted += sign
        elif trial.role is TrialRole.TRIAL:
            self.free += sign


def _dense_again(trial: TrialRecord) -> TrialRecord:
    """Let a dense model that failed in an earlier run be scored again: nothing can be searched without it."""
    if trial.number != DENSE or trial.state is not TrialState.FAIL:
        return trial
    return replace(trial, state=TrialState.WAITING, reason=None, message=None, finished=None, attempts=0)
