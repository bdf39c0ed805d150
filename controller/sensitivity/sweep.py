"""`paretrim sweep`: uniform policies at given keep ratios, and how far a tolerated loss lets them go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from controller.errors import PreflightError
from controller.job import JobSpec
from controller.job_file import anchored
from controller.local_scores import LocalScores
from controller.preparation import Description, describe, operators_of
from controller.results import Progress
from controller.sensitivity.sensitivity import losses_of
from controller.sensitivity.sweep_report import SweepRequest, SweepResult, SweepRow, check_sweep, is_tolerated, verdicts
from controller.stages import Stages
from controller.storage.engine import open_database
from controller.storage.repository import Repository
from controller.tables.measuring import measure_table
from evaluators.confidence import bootstrap_interval
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.table import check_fingerprint, load_table
from evaluators.latency.workload import Operator
from evaluators.scores import Quality
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, UnitSpace
from workers.protocol import TrialFailure
from workers.targets import TARGETS
from workers.targets.device import DEVICES
from workers.trial import TrialWorker, check_data


@dataclass(frozen=True, slots=True, kw_only=True)
class _Uniform:
    """A uniform policy of the sweep."""

    keep: float
    format: str
    policy: Policy

    @property
    def name(self) -> str:
        return f"keep {self.keep:g}, {self.format}"


def run_sweep(
    job: JobSpec,
    on_progress: Callable[[Progress], None],
    *,
    keep: Sequence[float],
    max_drop: float | None = None,
    format: str | None = None,
) -> SweepResult:
    """Score uniform policies, as far as nobody paid for them, and say which is within the tolerated loss.

    Args:
        job: The job; of its space the formats and the excluded units count.
        on_progress: Told of every stage.
        keep: Keep ratios, above 0 to 1.
        max_drop: Tolerated loss, 0 to 1; None takes the job's constraint, or 0.01 where it has none.
        format: One format for all; None takes the job's formats.

    Raises:
        SweepError: A ratio, the tolerance or the format makes no sense.
        PreflightError: The dense model has no score.
    """
    request = check_sweep(job, keep=keep, max_drop=max_drop, format=format)
    stages = Stages(on_progress)
    stages("reading the model")
    job = anchored(job, Path.cwd())
    repository = Repository(open_database(job.storage))
    sweep_job = job.model_copy(update={"space": _space(job, request, overrides=format is None)})
    description = describe(sweep_job)
    check_data(description.spec)
    uniform = _policies(description, request)
    table = _table(sweep_job, description, _table_of_study(job, repository), uniform, stages)
    description = describe(sweep_job.model_copy(update={"target": job.target.model_copy(update={"table": table})}))
    foreign = _foreign(job, table)
    stages("reading model and data")
    worker = TrialWorker(description.spec)
    scores = LocalScores(worker, repository.quality_store(worker.evaluation_digest))
    dense = _score_dense(scores, worker, stages)
    before, rows = scores.made, []
    for done, entry in enumerate(uniform):
        stages("scoring uniform policies", done, len(uniform))
        rows.append(_row(job, request, entry, scores.score(entry.policy), dense, worker))
    costs = worker.costs.costs(worker.space.dense_policy())
    return SweepResult(
        study=job.name,
        metric=dense.metric,
        examples=len(dense.per_example),
        max_drop=request.max_drop,
        confidence=job.recheck.confidence,
        dense_quality=dense.value,
        dense_latency_ms=costs.latency_ms,
        dense_size_bytes=costs.size_bytes,
        rows=tuple(rows),
        verdicts=verdicts(rows, dense.metric, request.max_drop),
        scored=scores.made - before,
        foreign_table=foreign,
        extrapolated=len(worker.costs.predictor.extrapolated(_operators(description, uniform))),
    )


def _space(job: JobSpec, request: SweepRequest, *, overrides: bool) -> SpaceConfig:
    """The job's space with the sweep's ratios; units with formats of their own keep them, unless one was asked for."""
    own = tuple(o.model_copy(update={"keep": None}) for o in job.space.override if o.formats) if overrides else ()
    return SpaceConfig(
        keep=tuple(dict.fromkeys((1.0, *request.keep))),
        formats=request.formats,
        exclude=job.space.exclude,
        override=own,
    )


def _policies(description: Description, request: SweepRequest) -> list[_Uniform]:
    spaces = description.space.unit_spaces
    types = {unit_space.unit.layer_type for unit_space in spaces}
    formats = [name for name in request.formats if types & set(FORMATS.get(name).layer_types)]
    multiple = TARGETS.get(description.spec.target.name).channel_multiple
    return [
        _Uniform(
            keep=ratio,
            format=name,
            policy=Policy({s.unit.name: _choice(s, ratio, name, multiple) for s in spaces}),
        )
        for name in formats
        for ratio in request.keep
    ]


def _choice(unit_space: UnitSpace, ratio: float, name: str, multiple: int) -> Choice:
    """A unit's choice nearest to a ratio and a format; excluded units are whole, in the base format."""
    (count,) = unit_space.unit.counts((ratio,), channel_multiple=multiple)
    keep = count if count in unit_space.keeps else unit_space.keeps[0]
    return Choice(keep, name if name in unit_space.formats else unit_space.formats[0])


def _table_of_study(job: JobSpec, repository: Repository) -> Path:
    """The latency table of the job's study, or the one that its search would measure."""
    record = repository.find_study(job.name)
    if job.target.table is not None or record is None:
        return describe(job).table
    return Path(json.loads(record.job_json)["target"]["table"])


def _table(job: JobSpec, description: Description, known: Path, uniform: Sequence[_Uniform], stages: Stages) -> Path:
    """A table that answers for the sweep's policies: the study's own, else a copy that is measured further."""
    operators = _operators(description, uniform)
    if known.exists() or job.target.table is not None:
        try:
            LatencyPredictor(
                load_table(known), description.workload, allow_extrapolation=job.target.allow_extrapolation
            ).check(operators)
        except MissingEntryError:
            if job.target.table is not None:
                raise
        else:
            return known
    # A study's table never changes under it, so what it lacks is measured into another.
    mine = description.table
    if not mine.exists() and known.exists():
        mine.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(known, mine)
    measure_table(description.request(operators), stages)
    return mine


def _operators(description: Description, uniform: Sequence[_Uniform]) -> tuple[Operator, ...]:
    return operators_of((description.space.dense_policy(), *(entry.policy for entry in uniform)), description)


def _foreign(job: JobSpec, table: Path) -> bool:
    here = DEVICES.get(job.target.name)(job.target.threads).fingerprint()
    return bool(
        check_fingerprint(load_table(table), here, target=job.target.name, allow_foreign=job.target.allow_foreign_table)
    )


def _score_dense(scores: LocalScores, worker: TrialWorker, stages: Stages) -> Quality:
    stages("scoring the dense model")
    outcome = scores.score(worker.space.dense_policy())
    if isinstance(outcome, TrialFailure):
        raise PreflightError(f"the dense model must have a score; it failed ({outcome.reason}): {outcome.message}")
    return outcome


def _kept(policy: Policy, worker: TrialWorker) -> float:
    """Mean share of the groups that stay, over the units that have more than one."""
    shares = [policy[unit.name].keep / unit.groups for unit in worker.structure.units if unit.groups > 1]
    return fmean(shares) if shares else 1.0


def _row(
    job: JobSpec,
    request: SweepRequest,
    entry: _Uniform,
    outcome: Quality | TrialFailure,
    dense: Quality,
    worker: TrialWorker,
) -> SweepRow:
    costs, whole = worker.costs.costs(entry.policy), worker.costs.costs(worker.space.dense_policy())
    low, high, drop = None, None, None
    if isinstance(outcome, Quality):
        drop = dense.value - outcome.value
        recheck = job.recheck
        losses = losses_of(dense, outcome)
        low, high = bootstrap_interval(losses, confidence=recheck.confidence, resamples=recheck.resamples)
    return SweepRow(
        name=entry.name,
        keep=entry.keep,
        kept=_kept(entry.policy, worker),
        format=entry.format,
        policy_digest=entry.policy.digest,
        quality=outcome.value if isinstance(outcome, Quality) else None,
        drop=drop,
        drop_low=low,
        drop_high=high,
        latency_ms=costs.latency_ms,
        latency_ratio=costs.latency_ms / whole.latency_ms,
        size_bytes=costs.size_bytes,
        size_ratio=costs.size_bytes / whole.size_bytes,
        within=drop is not None and is_tolerated(drop, request.max_drop),
        failure=outcome.message if isinstance(outcome, TrialFailure) else None,
    )
