"""A study's trials for samplers that read each of them once, when it has ended."""

from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial


class TrialFeed:
    """Remembers how far a study was read, and nothing else."""

    def __init__(self) -> None:
        self._read = 0
        self._open: list[int] = []

    def advance(self, study: optuna.Study, trial: FrozenTrial) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Read what has happened since the last call.

        Args:
            study: The study.
            trial: The trial that is being proposed, which is left out.

        Returns:
            Trials that have ended since, and all that are still running; both in order of their numbers.
        """
        trials = study.get_trials(deepcopy=False)
        ended: list[FrozenTrial] = []
        running: list[FrozenTrial] = []
        for number in self._unread(len(trials)):
            (ended if trials[number].state.is_finished() else running).append(trials[number])
        self._read = len(trials)
        self._open = [found.number for found in running]
        return ended, [found for found in running if found.number != trial.number]

    def _unread(self, count: int) -> Iterator[int]:
        yield from self._open
        yield from range(self._read, count)
