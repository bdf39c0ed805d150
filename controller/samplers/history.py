"""What a study's trials say, read as points of a grid: each trial once, as it comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from controller.samplers.choices import ChoiceGrid, Floats, Options
from controller.samplers.context import divergence_of, share_of, wanted_rung
from controller.samplers.trial_feed import TrialFeed

_FIRST_ROWS = 64


@dataclass(frozen=True, slots=True)
class Point:
    """A finished trial.

    Attributes:
        options: The point of the grid.
        quality: Its quality.
        divergence: Divergence from the dense model's outputs in nats; None where the study does not tell it.
        is_whole: Whether the quality is that of all examples, or estimated for them.
    """

    options: Options
    quality: float
    divergence: float | None
    is_whole: bool


class Scored:
    """Points whose quality on all examples is known or estimated, as arrays that grow.

    Args:
        grid: The space.
    """

    def __init__(self, grid: ChoiceGrid) -> None:
        self._options_NU = np.zeros((_FIRST_ROWS, grid.units), dtype=np.int64)
        self._values_NV = np.zeros((_FIRST_ROWS, grid.costs + 2))
        self._grid = grid
        self.count = 0
        self.front: list[int] = []
        """Positions of the points that no other one dominates."""

    @property
    def options_NU(self) -> Options:
        """Their options."""
        return self._options_NU[: self.count]

    @property
    def costs_NK(self) -> Floats:
        """Their costs."""
        return self._values_NV[: self.count, 2:]

    @property
    def quality_N(self) -> Floats:
        """Their quality."""
        return self._values_NV[: self.count, 0]

    @property
    def divergence_N(self) -> Floats:
        """Their divergence from the dense model; NaN where it is not told."""
        return self._values_NV[: self.count, 1]

    def add(self, point: Point) -> None:
        """Add a point."""
        if self.count == len(self._options_NU):
            self._options_NU = np.concatenate([self._options_NU, np.zeros_like(self._options_NU)])
            self._values_NV = np.concatenate([self._values_NV, np.zeros_like(self._values_NV)])
        costs = self._grid.estimate(point.options) if self._grid.is_exact else self._grid.exact(point.options)
        divergence = np.nan if point.divergence is None else point.divergence
        self._options_NU[self.count] = point.options
        self._values_NV[self.count] = [point.quality, divergence, *costs]
        self.count += 1
        self._weigh(self.count - 1)

    def _weigh(self, new: int) -> None:
        """Put a point on the front, and off it what it dominates; equal points stay together."""
        front = np.array(self.front, dtype=np.int64)
        mine = np.append(-self.quality_N[new], self.costs_NK[new])
        theirs = np.column_stack([-self.quality_N[front], self.costs_NK[front]])
        if np.any(np.all(theirs <= mine, axis=1) & np.any(theirs < mine, axis=1)):
            return
        is_dominated = np.all(mine <= theirs, axis=1) & np.any(mine < theirs, axis=1)
        self.front = [*front[~is_dominated].tolist(), new]


class History:
    """The trials of a study as far as they were read.

    Args:
        grid: The space.
        quality_index: Position of quality among the study's values.
    """

    def __init__(self, grid: ChoiceGrid, quality_index: int) -> None:
        self._grid, self._quality_index = grid, quality_index
        self.scored = Scored(grid)
        """Points whose quality on all examples is known or estimated."""
        self.alone: dict[bytes, Point] = {}
        """Points at which one unit is changed; scores on all examples go before those on few."""
        self.pending: dict[int, Options] = {}
        """Points that are running, by trial number."""
        self.seen: set[bytes] = set()
        """Points that were asked for in full."""
        self.probed: set[bytes] = set()
        """Points that were asked for on a rung."""
        self.dense: Point | None = None
        """The least lossy point of the grid, once it is scored on all examples."""
        self.finished = 0
        """Trials that brought a score."""
        self._feed = TrialFeed()

    def read(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Read what is new.

        Args:
            study: The study.
            trial: The trial that is being proposed, which is left out.
        """
        ended, running = self._feed.advance(study, trial)
        for found in [*ended, *running]:
            self._take(found)

    def _take(self, trial: FrozenTrial) -> None:
        options = self._grid.read(trial.params)
        self.pending.pop(trial.number, None)
        if options is None:
            return
        is_probe = wanted_rung(trial.system_attrs) is not None
        (self.probed if is_probe else self.seen).add(options.tobytes())
        if not trial.state.is_finished():
            if not is_probe:
                self.pending[trial.number] = options
        elif trial.state is TrialState.COMPLETE and np.all(np.isfinite(trial.values)):
            quality = float(trial.values[self._quality_index])
            # What racing has stopped is told with an estimate for all examples; a probe is not.
            self._keep(Point(options, quality, divergence_of(trial), not is_probe or share_of(trial) >= 1))

    def _keep(self, point: Point) -> None:
        self.finished += 1
        changed = np.count_nonzero(point.options)
        if changed == 1 and (point.is_whole or point.options.tobytes() not in self.alone):
            self.alone[point.options.tobytes()] = point
        if point.is_whole:
            self.scored.add(point)
            if not changed:
                self.dense = point
