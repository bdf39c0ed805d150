"""Changes of one unit that would save most time, with what a study knows of their quality."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controller.explanation.report import Saving
from controller.explanation.words import choice_text, names_text
from controller.storage.records import TrialRecord, TrialRole, TrialState
from evaluators.latency.idle_choices import IdleChoice
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.single_changes import ChangeKind, SingleChange, single_changes
from search_spaces.space import SearchSpace

_EACH = 3
"""Changes that are named of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """Changes of one unit that would save most time.

    Attributes:
        changes: Those of formats, then those to fewer groups, each by falling savings.
        note: Of which units the table can't tell all; None where it can.
    """

    changes: tuple[Saving, ...]
    note: str | None


def savings_of(
    trial: TrialRecord,
    trials: Sequence[TrialRecord],
    space: SearchSpace,
    predictor: LatencyPredictor,
    *,
    idle: Sequence[IdleChoice],
) -> Savings:
    """Find what the policy of a trial could save by another choice for one unit.

    Args:
        trial: The trial.
        trials: All trials of its study.
        space: What there is to choose.
        predictor: Times on the target.
        idle: Choices of the policy that are known to buy no time; what is better than they are is not named again.
    """
    found = single_changes(space, trial.policy, predictor, most=_EACH)
    named = {(each.unit, each.better) for each in idle}
    latency_ms = predictor.policy_ms(space.structure, trial.policy)
    groups = {unit.name: unit.groups for unit in space.structure.units}
    changes = tuple(
        _saving(change, groups[change.unit], trial, trials, latency_ms=latency_ms)
        for change in (*found.formats, *found.keeps)
        if (change.unit, change.other) not in named
    )
    note = f"what else could save time in {names_text(found.untold)} is not known: the table can't price all of it"
    return Savings(changes=changes, note=note if found.untold else None)


def _saving(
    change: SingleChange, groups: int, trial: TrialRecord, trials: Sequence[TrialRecord], *, latency_ms: float
) -> Saving:
    scored = next(_of_policy(change, trials), None)
    complete = scored if scored is not None and scored.state is TrialState.COMPLETE else None
    quality = None if complete is None else complete.quality
    difference = None if quality is None or trial.quality is None else quality - trial.quality
    share = change.saved_ms / latency_ms
    if scored is None:
        known = "no trial has scored that"
    elif quality is None or difference is None:
        known = f"{scored.name} is that, and was stopped as it could not enter the front"
    else:
        known = f"{scored.name} is that, with {scored.metric} {quality:.4f} ({difference:+.4f})"
    return Saving(
        unit=change.unit,
        kind=change.kind,
        choice=choice_text(change.choice, groups),
        other=choice_text(change.other, groups),
        saved_ms=change.saved_ms,
        share=share,
        trial=None if scored is None else scored.number,
        quality=quality,
        quality_change=difference,
        sentence=f"{_words(change)} would save {change.saved_ms:.3g} ms ({share:.1%}); {known}",
    )


def _of_policy(change: SingleChange, trials: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
    """Trials that scored the changed policy, those on all examples first."""
    same = [each for each in trials if each.role is not TrialRole.PROBE and each.policy == change.policy]
    yield from (each for each in same if each.state is TrialState.COMPLETE)
    yield from (each for each in same if each.stopped_early)


def _words(change: SingleChange) -> str:
    before, after = change.choice, change.other
    if change.kind is ChangeKind.FORMAT:
        return f"{change.unit} in {after.format} instead of {before.format}"
    if after.keep == 0:
        return f"{change.unit} left out"
    return f"{change.unit} with keep {after.keep} instead of {before.keep}"
