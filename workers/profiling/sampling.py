"""Samples operators in rounds: interleaved against drift, oftener where they are noisy, again where a clock moved."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from evaluators.latency.workload import Operator
from workers.targets.device import Device

CLOCK_TOLERANCE = 0.1
"""Change of the reference operator's time beyond which a round does not count."""
MIN_ROUNDS = 2
_NORMAL_MEDIAN = math.sqrt(math.pi / 2)
"""Standard deviation over mean deviation, and error of a median over that of a mean, of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileBudget:
    """How much is measured.

    Attributes:
        rounds: Passes over all operators, each in a random order, so that a drift of the clock hits all alike.
        max_rounds: Most passes, the later ones over operators only that are not sure yet.
        runs: Timed runs of an operator in a round.
        error: Standard error of an operator's median, relative to it, up to which it is sampled again.
        seconds: Time after which no further round starts, once every operator has had two; None has no limit.
    """

    rounds: int = 4
    max_rounds: int = 12
    runs: int = 15
    error: float = 0.01
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """An operator that is timed between rounds and tells whether the machine still runs as before.

    Attributes:
        operator: The operator.
        working_set_bytes: Its working set; see `Device.sample`.
        times_ms: Its median time whenever it was timed.
    """

    operator: Operator
    working_set_bytes: int
    times_ms: list[float] = field(default_factory=list)

    @property
    def level_ms(self) -> float:
        """Its usual time."""
        return median(self.times_ms)

    def time(self, device: Device, *, runs: int, seed: int) -> float:
        """Time it once more, and return and keep the median."""
        times_ms = device.sample(self.operator, runs=runs, seed=seed, working_set_bytes=self.working_set_bytes)
        self.times_ms.append(median(times_ms))
        return self.times_ms[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One pass.

    Attributes:
        times_ms: Times of the operators that were sampled.
        before_ms: Time of the reference operator before it.
        after_ms: And behind it.
    """

    times_ms: Mapping[Operator, Sequence[float]]
    before_ms: float
    after_ms: float

    def is_steady(self, level_ms: float) -> bool:
        """Whether the reference operator took its usual time before and after."""
        return all(abs(x / level_ms - 1) <= CLOCK_TOLERANCE for x in (self.before_ms, self.after_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What some rounds gave.

    Attributes:
        times_ms: Times by operator, of steady rounds where there were two of them.
        rounds: Passes that were made.
        unsteady: How many of them came while the reference operator took another time than usual.
        unsettled: Operators that keep times of unsteady rounds, as no others were to be had.
        reference_ms: Median time of the reference operator around these rounds.
    """

    times_ms: Mapping[Operator, Sequence[float]]
    rounds: int
    unsteady: int
    unsettled: int
    reference_ms: float


def median_error(rounds_ms: Sequence[Sequence[float]]) -> float:
    """Return the standard error of a median, relative to it, by how far the rounds' medians lie apart.

    Runs of one round share weights, memory and clock, so that only rounds are independent.

    Args:
        rounds_ms: Times of one operator by round, one or more rounds.
    """
    medians = [median(times_ms) for times_ms in rounds_ms]
    if len(medians) < 2:
        return math.inf
    middle = median(medians)
    deviation = _NORMAL_MEDIAN * sum(abs(x - middle) for x in medians) / len(medians)
    return _NORMAL_MEDIAN * deviation / math.sqrt(len(medians)) / middle


def sample_rounds(
    operators: Mapping[Operator, int],
    reference: Reference,
    device: Device,
    budget: ProfileBudget,
    generator: random.Random,
    *,
    progress: Callable[[int], None],
) -> Samples:
    """Sample operators until each has enough rounds and its median is sure, or the budget ends.

    Args:
        operators: Working set in bytes by operator; see `Device.sample`.
        reference: Timed before and after every round. A round during which it took more than 10 % more or less than
            usual does not count, and is made up for.
        device: What is measured.
        budget: How much is measured.
        generator: Source of orders and seeds.
        progress: Called with the number of samples taken after each.
    """
    start, taken = time.monotonic(), 0
    rounds: list[Round] = []
    before_ms = reference.time(device, runs=budget.runs, seed=generator.getrandbits(32))
    while len(rounds) < budget.max_rounds:
        wanted = [operator for operator in operators if not _is_settled(operator, rounds, reference.level_ms, budget)]
        is_late = budget.seconds is not None and time.monotonic() - start > budget.seconds
        if not wanted or (is_late and len(rounds) >= MIN_ROUNDS):
            break
        times_ms = {}
        for operator in generator.sample(wanted, len(wanted)):
            times_ms[operator] = device.sample(
                operator, runs=budget.runs, seed=generator.getrandbits(32), working_set_bytes=operators[operator]
            )
            taken += 1
            progress(taken)
        after_ms = reference.time(device, runs=budget.runs, seed=generator.getrandbits(32))
        rounds.append(Round(times_ms=times_ms, before_ms=before_ms, after_ms=after_ms))
        before_ms = after_ms
    return _gather(operators, rounds, reference.level_ms)


def _is_settled(operator: Operator, rounds: Sequence[Round], level_ms: float, budget: ProfileBudget) -> bool:
    times_ms = _times_of(operator, rounds, level_ms)
    return len(times_ms) >= budget.rounds and median_error(times_ms) <= budget.error


def _times_of(operator: Operator, rounds: Sequence[Round], level_ms: float) -> list[Sequence[float]]:
    return [r.times_ms[operator] for r in rounds if operator in r.times_ms and r.is_steady(level_ms)]


def _gather(operators: Mapping[Operator, int], rounds: Sequence[Round], level_ms: float) -> Samples:
    times_ms, unsettled = {}, 0
    for operator in operators:
        found = _times_of(operator, rounds, level_ms)
        if len(found) < MIN_ROUNDS:
            found = [r.times_ms[operator] for r in rounds if operator in r.times_ms]
            unsettled += 1
        times_ms[operator] = [x for times in found for x in times]
    unsteady = sum(not r.is_steady(level_ms) for r in rounds)
    return Samples(
        times_ms=times_ms,
        rounds=len(rounds),
        unsteady=unsteady,
        unsettled=unsettled,
        reference_ms=median(x for r in rounds for x in (r.before_ms, r.after_ms)),
    )
