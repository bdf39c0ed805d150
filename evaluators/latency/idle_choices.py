"""Choices of a policy that buy no time on a target: widths between steps, slow formats, pruning that saves little."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.table import LatencyTable
from evaluators.latency.workload import policy_operators
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, UnitSpace
from search_spaces.units import Unit

LITTLE = 0.01
"""Share of the dense model's latency below which pruning saves little."""
_STEPS = (16, 32, 64)
"""Widths that kernels like to work in."""
_USUAL_SPREAD = 0.03
_SPREADS = (0.005, 0.1)
"""A spread below this is finer than times repeat on another day, and one above would call too much the same."""


class IdleKind(StrEnum):
    """Why a choice buys nothing."""

    WIDER_COSTS_THE_SAME = "wider_costs_the_same"
    """The unit could keep more at the same time."""
    FORMAT_IS_SLOWER = "format_is_slower"
    """A format with at least as many bits is faster."""
    PRUNING_SAVES_LITTLE = "pruning_saves_little"
    """All that was pruned takes hardly any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleChoice:
    """A choice that buys no time.

    Attributes:
        unit: Name of the unit.
        kind: Why.
        choice: What the policy chose.
        better: What costs no more time and loses less, or what it was pruned from.
        unit_ms: Time of the unit as it is.
        saved_ms: Time that the policy saves by its choice against `better`; 0 or below where it saves none.
        width: Channels that the unit keeps.
        better_width: Channels of `better`.
    """

    unit: str
    kind: IdleKind
    choice: Choice
    better: Choice
    unit_ms: float
    saved_ms: float
    width: int
    better_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleChoices:
    """What is known of a policy's choices.

    Attributes:
        idle: Choices that buy no time, unit by unit.
        untold: Units whose choice is another than the dense model's, and of whose other choices the table can't price
            one or more.
    """

    idle: tuple[IdleChoice, ...]
    untold: tuple[str, ...]


def tolerance_of(table: LatencyTable) -> float:
    """Return the relative difference within which a table's times are the same: its median spread, within limits."""
    spreads = [spread for entry in table.entries if (spread := entry.relative_spread) is not None]
    low, high = _SPREADS
    return min(max(statistics.median(spreads), low), high) if spreads else _USUAL_SPREAD


def idle_choices(space: SearchSpace, policy: Policy, predictor: LatencyPredictor, *, tolerance: float) -> IdleChoices:
    """Find the choices of a policy that buy no time.

    Args:
        space: What there was to choose.
        policy: The policy.
        predictor: Times on the target.
        tolerance: Relative difference of a unit's times that counts as none, 0 or more.
    """
    finder = _Finder(space, policy, predictor, tolerance)
    idle = tuple(found for unit_space in space.unit_spaces for found in finder.of(unit_space))
    return IdleChoices(idle=idle, untold=tuple(finder.untold))


class _Finder:
    def __init__(self, space: SearchSpace, policy: Policy, predictor: LatencyPredictor, tolerance: float) -> None:
        self._space, self._policy, self._tolerance = space, policy, tolerance
        self._predictor = predictor
        self._inside = predictor.for_policy(space.structure, policy)
        self._dense_ms = predictor.policy_ms(space.structure, space.dense_policy())
        self._policy_ms = predictor.policy_ms(space.structure, policy)
        self.untold: dict[str, None] = {}

    def of(self, unit_space: UnitSpace) -> Iterator[IdleChoice]:
        unit, choice = unit_space.unit, self._policy[unit_space.unit.name]
        counts = policy_operators(unit, self._policy, self._space.base_format, self._predictor.workload)
        unit_ms = self._inside.operators_ms(counts.items())
        wider = self._wider(unit_space, choice, unit_ms)
        if wider is not None:
            yield self._found(unit_space, IdleKind.WIDER_COSTS_THE_SAME, choice, wider, unit_ms)
        elif choice.keep < unit.groups:
            whole = Choice(unit.groups, choice.format)
            if (saved_ms := self._saved_ms(unit_space, whole)) is not None and saved_ms < LITTLE * self._dense_ms:
                yield self._found(unit_space, IdleKind.PRUNING_SAVES_LITTLE, choice, whole, unit_ms)
        faster = self._faster_format(unit_space, choice, unit_ms)
        if faster is not None:
            yield self._found(unit_space, IdleKind.FORMAT_IS_SLOWER, choice, faster, unit_ms)

    def _wider(self, unit_space: UnitSpace, choice: Choice, unit_ms: float) -> Choice | None:
        """The widest that costs the same, of what is on offer and of the next widths that kernels like."""
        if choice.keep == 0:
            return None
        unit = unit_space.unit
        counts = {keep for keep in (*unit_space.keeps, *_next_steps(unit, choice.keep)) if keep > choice.keep}
        for keep in sorted(counts, reverse=True):
            saved_ms = self._saved_ms(unit_space, Choice(keep, choice.format))
            if saved_ms is not None and saved_ms <= self._tolerance * unit_ms:
                return Choice(keep, choice.format)
        return None

    def _faster_format(self, unit_space: UnitSpace, choice: Choice, unit_ms: float) -> Choice | None:
        """The fastest of the formats with at least as many bits that are faster by more than times differ."""
        if choice.keep == 0:
            return None
        bits = FORMATS.get(choice.format).weight_bits
        offered = {*unit_space.formats, self._space.base_format}
        rivals = [name for name in sorted(offered - {choice.format}) if FORMATS.get(name).weight_bits >= bits]
        richer = [Choice(choice.keep, name) for name in rivals]
        known = [(ms, other) for other in richer if (ms := self._saved_ms(unit_space, other)) is not None]
        saved_ms, best = min(known, default=(0.0, choice))
        return best if saved_ms < -self._tolerance * unit_ms else None

    def _saved_ms(self, unit_space: UnitSpace, other: Choice) -> float | None:
        """Time that the policy saves against the same one with another choice; None where the table can't tell."""
        changed = self._policy.replace(**{unit_space.unit.name: other})
        try:
            return self._predictor.policy_ms(self._space.structure, changed) - self._policy_ms
        except MissingEntryError:
            self._note(unit_space, other)
            return None

    def _note(self, unit_space: UnitSpace, other: Choice) -> None:
        """Note a unit of whose choices nothing can be said; widths that are not on offer are no choices."""
        name, dense = unit_space.unit.name, Choice(unit_space.unit.groups, self._space.base_format)
        offered = other.keep in (*unit_space.keeps, dense.keep) and other.format in (*unit_space.formats, dense.format)
        if offered and self._policy[name] != dense:
            self.untold[name] = None

    def _found(
        self, unit_space: UnitSpace, kind: IdleKind, choice: Choice, better: Choice, unit_ms: float
    ) -> IdleChoice:
        unit, saved_ms = unit_space.unit, self._saved_ms(unit_space, better)
        assert saved_ms is not None
        return IdleChoice(
            unit=unit.name,
            kind=kind,
            choice=choice,
            better=better,
            unit_ms=unit_ms,
            saved_ms=saved_ms,
            width=choice.keep * unit.columns_per_group,
            better_width=better.keep * unit.columns_per_group,
        )


def _next_steps(unit: Unit, keep: int) -> Iterator[int]:
    """Counts of the next widths that are multiples of what kernels like, where the present width is none."""
    for step in _STEPS:
        if keep * unit.columns_per_group % step:
            groups = math.lcm(step, unit.columns_per_group) // unit.columns_per_group
            found = math.ceil(keep / groups) * groups
            if found <= unit.groups:
                yield found
