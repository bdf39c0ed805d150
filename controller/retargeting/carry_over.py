"""Which trials of a study serve another target, what they cost there, and which of them must be scored again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from controller.front import FrontMember, feasible, hypervolume, pareto_front
from controller.job import Constraints, Objective
from controller.progress import front_member
from controller.samplers.context import RUNG
from controller.storage.records import TrialRecord, TrialRole, TrialState
from evaluators.scores import Costs
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace

ESTIMATE = "scored in calls of another size: an estimate until it is scored again"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedOver:
    """Trials of a study as another study begins with them.

    Attributes:
        trials: The trials, numbered anew from 0, with their costs on the other target; the dense model comes first.
        estimates: How many of them have a quality that is an estimate: they may be better than the front, but are not
            on it.
        left_out: Trials with a score whose policies the other target has no kernels for.
    """

    trials: tuple[TrialRecord, ...]
    estimates: int
    left_out: int


def carry_over(
    trials: Iterable[TrialRecord], space: SearchSpace, cost_of: Callable[[Policy], Costs], *, same_calls: bool
) -> CarriedOver:
    """Price the finished trials of a study on another target, without scoring anything.

    Repeats are left out, and what was never scored as it cost too much: costs are others now. In calls of another size
    activations are quantized in other company and weights are calibrated on other batches, so that scores then are
    estimates, all but the dense model's.

    Args:
        trials: Trials of the study; the first one has scored the dense model.
        space: What the other target can run.
        cost_of: Costs there.
        same_calls: Whether the other target makes calls of as many examples.
    """
    found: list[TrialRecord] = []
    left_out = 0
    dense = space.dense_policy()
    for trial in sorted(trials, key=lambda t: t.number):
        if not _says_something(trial):
            continue
        if trial.policy != dense and not space.contains(trial.policy):
            left_out += trial.quality is not None
            continue
        carried = _renumbered(trial, len(found), cost_of(trial.policy))
        if not same_calls and trial.policy != dense and trial.state is TrialState.COMPLETE and trial.rung is None:
            carried = replace(carried, state=TrialState.PRUNED, message=ESTIMATE)
        found.append(carried)
    estimates = sum(trial.stopped_early for trial in found)
    return CarriedOver(trials=tuple(found), estimates=estimates, left_out=left_out)


def _says_something(trial: TrialRecord) -> bool:
    if not trial.state.is_finished or trial.repeat_of is not None:
        return False
    return trial.quality is not None or trial.state is TrialState.FAIL


def _renumbered(trial: TrialRecord, number: int, costs: Costs) -> TrialRecord:
    """A trial as a row of another study: its attempts stay behind, and so does what its sampler had noted."""
    return replace(
        trial,
        number=number,
        name=trial.name if trial.role is TrialRole.BASELINE else f"{trial.role} {number}",
        attempt=None,
        attempts=0,
        costs=costs,
        violations={},
        sampler_attributes={} if trial.rung is None else {RUNG: trial.rung},
    )


def to_score_again(
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    constraints: Constraints,
    chance_quality: float,
    *,
    most: int,
) -> list[Policy]:
    """Return the policies that would be on the front by an estimate, those that would add most to it first.

    Args:
        trials: All trials of the study, the dense model first.
        objectives: What spans the front.
        constraints: What a member must meet.
        chance_quality: Quality of guessing.
        most: How many at most.
    """
    members = [member for trial in trials if (member := front_member(trial)) is not None]
    dense = members[0]
    known = {member.policy_digest for member in members}
    known |= {trial.policy.digest for trial in trials if trial.state is TrialState.FAIL}
    waiting = {trial.policy.digest for trial in trials if not trial.state.is_finished}
    estimates = {t.policy.digest: t for t in trials if t.stopped_early and t.policy.digest not in known}
    # What waits for its score keeps others off the front by what is expected of it.
    expected = [member for trial in estimates.values() if (member := _expected(trial)) is not None]
    front = pareto_front(feasible([*members, *expected], constraints, dense.quality), objectives)

    def volume(without: FrontMember) -> float:
        rest = [member for member in front if member is not without]
        return hypervolume(rest, objectives, dense=dense, chance_quality=chance_quality)

    lacking = [m for m in front if m.policy_digest in estimates and m.policy_digest not in waiting]
    lacking.sort(key=lambda member: (volume(member), member.number))
    return [estimates[member.policy_digest].policy for member in lacking[: max(0, most)]]


def _expected(trial: TrialRecord) -> FrontMember | None:
    """A trial as a member of fronts, if its estimate holds."""
    return front_member(replace(trial, state=TrialState.COMPLETE))
