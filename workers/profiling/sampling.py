"""Samples operators in rounds: interleaved against drift, until each was seen undisturbed several times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluators.latency.workload import Operator
from workers.targets.device import Device
from workers.targets.undisturbed import undisturbed_ms

CLOCK_TOLERANCE = 0.1
"""How much longer than undisturbed the reference operator may take in a round that counts as undisturbed."""
MIN_ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileBudget:
    """How much is measured.

    Attributes:
        rounds: Passes over all operators, each in a random order, so that a drift of the clock hits all alike.
        max_rounds: Most passes, the later ones over operators only that are not sure yet.
        runs: Timed runs of an operator in a round.
        agreeing: Rounds that have to agree about an operator's undisturbed time; until they do it is sampled again.
        error: How far apart, relative to it, times are that agree.
        seconds: Time after which no further round starts, once every operator has had two; None has no limit.
    """

    rounds: int = 10
    max_rounds: int = 24
    runs: int = 8
    agreeing: int = 3
    error: float = 0.03
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """An operator that is timed between rounds and tells whether the machine still runs as before.

    Attributes:
        operator: The operator.
        working_set_bytes: Its working set; see `Device.sample`.
        times_ms: Its undisturbed time whenever it was timed.
    """

    operator: Operator
    working_set_bytes: int
    times_ms: list[float] = field(default_factory=list)

    @property
    def level_ms(self) -> float:
        """Its undisturbed time over all of these."""
        return undisturbed_ms(self.times_ms)

    def time(self, device: Device, *, runs: int, seed: int) -> float:
        """Time it once more, and return and keep the undisturbed time."""
        times_ms = device.sample(self.operator, runs=runs, seed=seed, working_set_bytes=self.working_set_bytes)
        self.times_ms.append(undisturbed_ms(times_ms))
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

    def is_undisturbed(self, level_ms: float) -> bool:
        """Whether the reference operator took no longer than undisturbed before and after."""
        return max(self.before_ms, self.after_ms) <= (1 + CLOCK_TOLERANCE) * level_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What some rounds gave.

    Attributes:
        times_ms: Times by operator.
        rounds: Passes that were made.
        disturbed: How many of them came while the reference operator took longer than undisturbed.
        unsettled: Operators about whose undisturbed time too few rounds agree, although they had all their rounds.
        cut: Operators that had fewer rounds than they should, as time was over.
        fewest_rounds: Rounds that every operator had at least.
        reference_ms: Undisturbed time of the reference operator around these rounds.
    """

    times_ms: Mapping[Operator, Sequence[float]]
    rounds: int
    disturbed: int
    unsettled: int
    reference_ms: float
    cut: int
    fewest_rounds: int

    def is_apart(self, level_ms: float) -> bool:
        """Whether the reference operator ran at another speed than its undisturbed time says, all the while."""
        return abs(self.reference_ms / level_ms - 1) > CLOCK_TOLERANCE


def agreeing_rounds(rounds_ms: Sequence[Sequence[float]], error: float) -> int:
    """Count the rounds whose undisturbed time is that of all rounds together.

    Runs of one round share weights, memory, clock and neighbours, so that only rounds are independent.

    Args:
        rounds_ms: Times of one operator by round, one or more rounds.
        error: Relative difference up to which two times are the same.
    """
    whole_ms = undisturbed_ms([x for times_ms in rounds_ms for x in times_ms])
    return sum(undisturbed_ms(times_ms) <= (1 + error) * whole_ms for times_ms in rounds_ms)


def are_sure(rounds_ms: Sequence[Sequence[float]], *, agreeing: int, error: float) -> bool:
    """Whether so many rounds agree, or all where there are fewer; see `agreeing_rounds`."""
    return agreeing_rounds(rounds_ms, error) >= min(agreeing, len(rounds_ms))


def sample_rounds(
    operators: Mapping[Operator, int],
    reference: Reference,
    device: Device,
    budget: ProfileBudget,
    generator: random.Random,
    *,
    progress: Callable[[int], None],
) -> Samples:
    """Sample operators until each has enough rounds and its undisturbed time is sure, or the budget ends.

    Args:
        operators: Working set in bytes by operator; see `Device.sample`.
        reference: Timed before and after every round: tells of how many of them the machine had other work, or slower
            clocks.
        device: What is measured.
        budget: How much is measured.
        generator: Source of orders and seeds.
        progress: Called with the number of samples taken after each.
    """
    start, taken = time.monotonic(), 0
    rounds: list[Round] = []
    before_ms = reference.time(device, runs=budget.runs, seed=generator.getrandbits(32))
    while len(rounds) < budget.max_rounds:
        wanted = [operator for operator in operators if not _is_settled(operator, rounds, budget)]
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
    return _gather(operators, rounds, reference.level_ms, budget)


def _is_settled(operator: Operator, rounds: Sequence[Round], budget: ProfileBudget) -> bool:
    times_ms = _times_of(operator, rounds)
    is_enough = len(times_ms) >= budget.rounds
    return is_enough and are_sure(times_ms, agreeing=budget.agreeing, error=budget.error)


def _times_of(operator: Operator, rounds: Sequence[Round]) -> list[Sequence[float]]:
    return [r.times_ms[operator] for r in rounds if operator in r.times_ms]


def _gather(operators: Iterable[Operator], rounds: Sequence[Round], level_ms: float, budget: ProfileBudget) -> Samples:
    found = {operator: _times_of(operator, rounds) for operator in operators}
    full = [times_ms for times_ms in found.values() if len(times_ms) >= budget.rounds]
    return Samples(
        times_ms={operator: [x for times in times_ms for x in times] for operator, times_ms in found.items()},
        rounds=len(rounds),
        disturbed=sum(not r.is_undisturbed(level_ms) for r in rounds),
        unsettled=sum(not are_sure(times_ms, agreeing=budget.agreeing, error=budget.error) for times_ms in full),
        cut=len(found) - len(full),
        fewest_rounds=min(len(times_ms) for times_ms in found.values()),
        reference_ms=undisturbed_ms([x for r in rounds for x in (r.before_ms, r.after_ms)]),
    )
