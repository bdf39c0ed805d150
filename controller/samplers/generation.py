"""One generation of an evolution: many offspring on few examples, the best on more, the winner on all."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

OFFSPRING = 16
"""Offspring of a generation, scored on the fewest examples."""
SURVIVORS = (4, 1)
"""How many of them go on to the second stage, and how many of those to the third."""
STAGES = 3
_OFFSPRING_IN_FULL = 4
_MIDDLE_SHARE = 1 / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What is known of a policy.

    Attributes:
        quality: The metric, larger is better.
        divergence: Divergence from the dense model's outputs in nats; None where it is not told.
        share: Share of the examples behind both.
    """

    quality: float
    divergence: float | None
    share: float

    @property
    def is_whole(self) -> bool:
        """Whether all examples are behind the score."""
        return self.share >= 1


class Move(Enum):
    """What a generation needs next."""

    OFFSPRING = auto()
    """Another child, on the first stage."""
    PROMOTE = auto()
    """A policy on a later stage."""
    WAIT = auto()
    """Results that are still to come."""
    END = auto()
    """Nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A move with what it is about.

    Attributes:
        move: The move.
        stage: Stage of the next trial, from 0.
        key: The policy to promote.
    """

    move: Move
    stage: int = 0
    key: bytes = b""


@dataclass(slots=True, kw_only=True)
class Generation:
    """Offspring of one parent at one cost target.

    Where the study scores everything on all examples there is nothing to promote, and a generation has four offspring.

    Attributes:
        number: Number of the generation, from 0.
        target: Index of the cost target.
        told: How many first-stage trials have ended.
        scores: For each stage the scores of policies.
        failed: For each stage the policies whose trials failed.
        is_used_up: Whether nothing new was found to score, so that it goes on with the offspring it has.
    """

    number: int
    target: int
    told: int = 0
    scores: tuple[dict[bytes, Score], ...] = field(default_factory=lambda: tuple({} for _ in range(STAGES)))
    failed: tuple[set[bytes], ...] = field(default_factory=lambda: tuple(set() for _ in range(STAGES)))

    is_used_up: bool = False

    def take(self, stage: int, key: bytes, score: Score | None) -> None:
        """Take what became of a trial; None for a failure."""
        self.told += stage == 0
        if score is None:
            self.failed[stage].add(key)
        else:
            self.scores[stage][key] = score

    def rung(self, stage: int) -> int:
        """Return the rung of a stage but the last: the fewest examples, then about a quarter of them all.

        Each rung has twice the examples of the one before; small splits have fewer rungs.
        """
        if stage == 0:
            return 0
        fewest = min((score.share for score in self.scores[0].values()), default=1.0)
        return max(1, round(math.log2(_MIDDLE_SHARE / fewest)))

    def next_step(self, pending: Sequence[Collection[bytes]]) -> Step:
        """Say what the generation needs next.

        Args:
            pending: For each stage the policies whose trials are running.
        """
        if not self.is_used_up and self.told + len(pending[0]) < self._wanted:
            return Step(move=Move.OFFSPRING)
        if pending[0]:
            return Step(move=Move.WAIT)
        pool = self.scores[0]
        if not pool:
            return self._step_without_scores(pending)
        for stage, count in enumerate(SURVIVORS, start=1):
            chosen = [key for key in best_of(pool, count) if key not in self.failed[stage]]
            missing = [key for key in chosen if not pool[key].is_whole and key not in self.scores[stage]]
            fresh = [key for key in missing if key not in pending[stage]]
            if fresh:
                return Step(move=Move.PROMOTE, stage=stage, key=fresh[0])
            if missing:
                return Step(move=Move.WAIT)
            pool = {key: self.scores[stage].get(key, pool[key]) for key in chosen}
        return Step(move=Move.END)

    def _step_without_scores(self, pending: Sequence[Collection[bytes]]) -> Step:
        """Where no offspring could be scored on few examples, let one of them try all of them."""
        last = STAGES - 1
        if self.scores[last] or self.failed[last]:
            return Step(move=Move.END)
        if pending[last]:
            return Step(move=Move.WAIT)
        return Step(move=Move.PROMOTE, stage=last, key=min(self.failed[0]))

    @property
    def _wanted(self) -> int:
        known = self.scores[0].values()
        return _OFFSPRING_IN_FULL if known and all(score.is_whole for score in known) else OFFSPRING


def best_of(pool: Mapping[bytes, Score], count: int) -> list[bytes]:
    """Return the best policies of a pool, best first: by divergence where all have one, else by quality.

    On few examples the divergence tells policies apart whose quality is equal.
    """
    by_divergence = all(score.divergence is not None for score in pool.values())

    def order(key: bytes) -> tuple[float, bytes]:
        score = pool[key]
        return (score.divergence if by_divergence and score.divergence is not None else -score.quality, key)

    return sorted(pool, key=order)[:count]
