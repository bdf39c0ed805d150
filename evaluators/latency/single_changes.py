"""Changes of one unit of a policy that save time on a target: another format, or the next fewer groups."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, UnitSpace

LITTLE = 0.01
"""Share of the policy's latency below which a change saves too little to be named."""


class ChangeKind(StrEnum):
    """What is changed."""

    FORMAT = "format"
    """Another format for as many groups."""
    KEEP = "keep"
    """The next fewer groups on offer in the same format, or none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleChange:
    """Another choice for one unit that saves time.

    Attributes:
        unit: Name of the unit.
        kind: What is changed.
        choice: What the policy chose.
        other: What would save time.
        policy: The policy with that change.
        saved_ms: Time that the change saves, above 0.
    """

    unit: str
    kind: ChangeKind
    choice: Choice
    other: Choice
    policy: Policy
    saved_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleChanges:
    """What one unit alone could save.

    Attributes:
        formats: The changes of format that save most, the best of each unit, by falling savings.
        keeps: The steps to fewer groups that save most, likewise.
        untold: Units of which the table can't price one or more of these changes.
    """

    formats: tuple[SingleChange, ...]
    keeps: tuple[SingleChange, ...]
    untold: tuple[str, ...]


def single_changes(space: SearchSpace, policy: Policy, predictor: LatencyPredictor, *, most: int) -> SingleChanges:
    """Find the changes of one unit, within what the space offers, that would save most of a policy's time.

    Args:
        space: What there is to choose.
        policy: The policy.
        predictor: Times on the target.
        most: Largest number of changes of each kind.
    """
    policy_ms = predictor.policy_ms(space.structure, policy)
    best: dict[tuple[ChangeKind, str], SingleChange] = {}
    untold: dict[str, None] = {}
    for unit_space in space.unit_spaces:
        unit = unit_space.unit.name
        for kind, other in _offered(unit_space, policy[unit], space.base_format):
            changed = policy.replace(**{unit: other})
            try:
                saved_ms = policy_ms - predictor.policy_ms(space.structure, changed)
            except MissingEntryError:
                untold[unit] = None
                continue
            before = best.get((kind, unit))
            if saved_ms >= LITTLE * policy_ms and (before is None or saved_ms > before.saved_ms):
                best[kind, unit] = SingleChange(
                    unit=unit, kind=kind, choice=policy[unit], other=other, policy=changed, saved_ms=saved_ms
                )
    ranked = sorted(best.values(), key=lambda change: -change.saved_ms)
    formats, keeps = ([change for change in ranked if change.kind is kind] for kind in ChangeKind)
    return SingleChanges(formats=tuple(formats[:most]), keeps=tuple(keeps[:most]), untold=tuple(untold))


def _offered(unit_space: UnitSpace, choice: Choice, base_format: str) -> Iterator[tuple[ChangeKind, Choice]]:
    """Changes of one unit along one axis; a unit that is left out has nothing left to save."""
    if choice.keep == 0:
        return
    fewer = max((keep for keep in unit_space.keeps if keep < choice.keep), default=None)
    for other in unit_space.choices(base_format):
        if other.keep == choice.keep and other.format != choice.format:
            yield ChangeKind.FORMAT, other
        elif other.keep == fewer and (other.format == choice.format or fewer == 0):
            yield ChangeKind.KEEP, other
