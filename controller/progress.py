"""How far a study is: counts, front, hypervolume, and the best policy under its constraints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controller.front import FrontMember, cost_bounds, feasible, hypervolume, pareto_front
from controller.job import Constraints
from controller.storage.records import TrialRecord, TrialRole, TrialState
from controller.study_config import StopReason, StudyConfig
from controller.study_view import HEADLINE_DROP
from evaluators.rungs import rung_share

_TOLERANCE = 1e-6
"""Shares of trials do not add up to whole numbers exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProgress:
    """A study at one moment.

    Attributes:
        trials_done: Proposed policies with a score or a failure; those on a rung of the examples count their share.
        trials_total: How many of these the job asks for.
        baselines_done: Baselines with a score or a failure.
        baselines_total: All baselines.
        running: Trials that a worker has in hand.
        failed: Trials that failed.
        pruned: Proposals whose costs alone break a constraint.
        stopped_early: Trials that were stopped on a rung, as they could not enter the front any more.
        probed: Policies that were scored on a rung only, for the sampler.
        repeated: Proposals that an earlier trial answered.
        feasible: Scored policies that meet the constraints, baselines among them; 0 before the dense model is scored.
        front: Members that none dominates and that meet the constraints, by falling latency.
        hypervolume: What they cover, in units of the dense model; None before the dense model is scored.
        best: The best policy under the constraints; None before there is one.
        elapsed_s: Seconds since this controller took the study.
        stop: Why nothing more is asked; None while the search goes on.
        waits_for: What holds the search up, in one line; None for nothing.
        failures: Failed trials by reason, the most frequent first.
        examples: Examples that were scored for all trials so far, a repeat's counted once.
    """

    trials_done: int
    trials_total: int
    baselines_done: int
    baselines_total: int
    running: int
    failed: int
    pruned: int
    stopped_early: int
    probed: int
    repeated: int
    feasible: int
    front: tuple[FrontMember, ...]
    hypervolume: float | None
    best: FrontMember | None
    elapsed_s: float
    stop: StopReason | None
    waits_for: str | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    examples: int = 0


def counted_share(trial: TrialRecord, examples: int | None = None) -> float:
    """Return how much a trial counts towards the number that the job asks for, 0 to 1.

    Repeats and too high costs are free. A probe counts the share of the examples that it asks for, and a trial that was
    stopped early the share that it got.

    Args:
        trial: A trial, finished or not.
        examples: Examples of the search split; None for a large one.
    """
    too_costly = trial.state is TrialState.PRUNED and trial.quality is None
    if trial.role is TrialRole.BASELINE or trial.repeat_of is not None or too_costly:
        return 0.0
    return trial.share if trial.rung is None else rung_share(trial.rung, examples)


def front_member(trial: TrialRecord) -> FrontMember | None:
    """Return a trial as a member of fronts, or None if it has no score of its own on the whole split."""
    if trial.state is not TrialState.COMPLETE or trial.repeat_of is not None or trial.quality is None:
        return None
    if trial.role is TrialRole.PROBE:
        return None
    return FrontMember(
        number=trial.number,
        policy_digest=trial.policy.digest,
        name=trial.name,
        quality=trial.quality,
        latency_ms=trial.costs.latency_ms,
        size_bytes=trial.costs.size_bytes,
        energy_mj=trial.costs.energy_mj,
        peak_memory_bytes=trial.costs.peak_memory_bytes,
    )


def measure_progress(
    config: StudyConfig, trials: Sequence[TrialRecord], *, elapsed_s: float, stop: StopReason | None
) -> StudyProgress:
    """Measure how far a study is from its trials; trial 0 is the dense model."""
    members = [member for trial in trials if (member := front_member(trial)) is not None]
    dense = next((m for m in members if m.number == 0 and m.quality > config.chance_quality), None)
    met: Sequence[FrontMember] = ()
    front: list[FrontMember] = []
    volume = None
    if dense is not None:
        met = feasible(members, config.constraints, dense.quality)
        front = pareto_front(met, config.objectives)
        volume = hypervolume(front, config.objectives, dense=dense, chance_quality=config.chance_quality)
    baselines = [trial for trial in trials if trial.role is TrialRole.BASELINE]
    states = [trial.state for trial in trials]
    return StudyProgress(
        trials_done=int(_TOLERANCE + sum(counted_share(t, config.examples) for t in trials if t.state.is_finished)),
        trials_total=config.trials,
        baselines_done=sum(trial.state.is_finished for trial in baselines),
        baselines_total=len(baselines),
        running=states.count(TrialState.RUNNING),
        failed=states.count(TrialState.FAIL),
        pruned=sum(t.state is TrialState.PRUNED and not t.stopped_early for t in trials),
        stopped_early=sum(t.stopped_early and t.repeat_of is None for t in trials),
        probed=sum(
            t.role is TrialRole.PROBE and t.state is TrialState.COMPLETE and t.repeat_of is None for t in trials
        ),
        repeated=sum(trial.repeat_of is not None for trial in trials),
        feasible=len(met),
        front=tuple(front),
        hypervolume=volume,
        best=None if dense is None else best_member(front, config.constraints, dense),
        elapsed_s=elapsed_s,
        stop=stop,
        failures=dict(Counter(str(t.reason) for t in trials if t.state is TrialState.FAIL).most_common()),
        examples=sum(_scored_examples(t, config.examples or 0) for t in trials),
    )


def _scored_examples(trial: TrialRecord, examples: int) -> int:
    """Examples of the search split that were scored for a trial."""
    if trial.quality is None or trial.repeat_of is not None:
        return 0
    return round(trial.share * examples)


def best_member(front: Sequence[FrontMember], constraints: Constraints, dense: FrontMember) -> FrontMember | None:
    """Return the member that the constraints ask for.

    With a bound on costs and none on quality that is the best in quality; else it is the fastest that loses no more
    quality than allowed, or one point where nothing is said.
    """
    if not front:
        return None
    if constraints.max_quality_drop is None and cost_bounds(constraints):
        return min(front, key=lambda m: (-m.quality, m.latency_ms, m.size_bytes))
    drop = HEADLINE_DROP if constraints.max_quality_drop is None else constraints.max_quality_drop
    close = [m for m in front if m.quality >= dense.quality - drop]
    return min(close, key=lambda m: (m.latency_ms, -m.quality, m.size_bytes), default=None)
