"""`paretrim policy`: one policy unit by unit, with what each unit costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.errors import PreflightError, UsageError
from controller.job import JobSpec
from controller.preparation import describe
from controller.record import Record
from controller.storage.engine import open_existing
from controller.storage.repository import Repository
from controller.study_summary import StudySummary, check_same_table, summarise
from evaluators.latency.breakdown import break_down
from evaluators.latency.lookup import LatencyPrediction, LatencyPredictor
from evaluators.latency.table import TableError, load_table
from search_spaces.formats import FORMATS
from search_spaces.policy import Policy
from workers.model import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitStrip(Record):
    """One unit of a policy.

    Attributes:
        name: Name of the unit.
        keep: Groups that stay; 0 leaves the unit out.
        groups: Groups of the dense unit.
        format: Name of the number format.
        weight_bits: Bits of a weight; 0 where the unit is left out.
        latency_ms: Its part of the predicted latency; None where the table or the model can't be read any more.
        latency_share: That part over the policy's latency, 0 to 1; None likewise.
    """

    name: str
    keep: int
    groups: int
    format: str
    weight_bits: int
    latency_ms: float | None = None
    latency_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReport(Record):
    """One policy of a study.

    Attributes:
        study: Name of the study.
        trial: Number of the trial.
        name: Its name.
        policy_digest: Identity of the policy.
        metric: Name of the quality metric.
        quality: Metric on the search split; None without a score.
        latency_ms: Predicted latency of one batch.
        latency_low_ms: Lower bound of 90 % of measured times; None where nobody measured how far the prediction errs,
            or the study's table can't be read any more.
        latency_high_ms: Upper bound, likewise.
        latency_sentence: How far the study's latencies err, in words; empty in studies of earlier versions.
        dense_latency_ms: That of the dense model; None before it is scored.
        size_bytes: Bytes of all parameters.
        dense_size_bytes: Those of the dense model; None before it is scored.
        units: Units in the order in which data flows.
        notes: What could not be told, and why.
    """

    study: str
    trial: int
    name: str
    policy_digest: str
    metric: str
    quality: float | None
    latency_ms: float
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    latency_sentence: str = ""
    dense_latency_ms: float | None
    size_bytes: int
    dense_size_bytes: int | None
    units: tuple[UnitStrip, ...]
    notes: tuple[str, ...] = ()


def load_policy(study: str, storage: str, *, trial: int) -> PolicyReport:
    """Read one policy of a study, and split its latency among its units.

    Args:
        study: Name of the study.
        storage: URL of its database.
        trial: Number of the trial; 0 is the dense model.

    Raises:
        UsageError: No such study or trial, or a trial without a score.
    """
    summary = summarise(Repository(open_existing(storage)), study)
    record = summary.trial(trial)
    job = summary.job.model_copy(update={"storage": storage})
    times, prediction, notes = _unit_times(summary, job, record.policy)
    dense = summary.dense
    return PolicyReport(
        study=study,
        trial=trial,
        name=record.name,
        policy_digest=record.policy.digest,
        metric=summary.metric,
        quality=record.quality,
        latency_ms=record.costs.latency_ms,
        latency_low_ms=None if prediction is None else prediction.low_ms,
        latency_high_ms=None if prediction is None else prediction.high_ms,
        latency_sentence=summary.latency_sentence,
        dense_latency_ms=None if dense is None else dense.latency_ms,
        size_bytes=record.costs.size_bytes,
        dense_size_bytes=None if dense is None else dense.size_bytes,
        units=_strips(summary, record.policy, times, record.costs.latency_ms),
        notes=notes,
    )


def _unit_times(
    summary: StudySummary, job: JobSpec, policy: Policy
) -> tuple[Mapping[str, float], LatencyPrediction | None, tuple[str, ...]]:
    """Milliseconds by unit, and all of them with their interval.

    None of it, with the reason, where the model or its table has gone or changed since the search.
    """
    try:
        description = describe(job)
        table = load_table(description.table)
        check_same_table(summary, table)
        predictor = LatencyPredictor(
            table,
            description.workload,
            structure=description.structure,
            allow_extrapolation=job.target.allow_extrapolation,
        )
        parts = break_down(description.structure, policy, predictor).units
        prediction = predictor.predict(description.structure, policy)
    except (ModelError, TableError, PreflightError, UsageError, OSError) as error:
        return {}, None, (f"shares of the latency are not known: {error}",)
    return {part.name: part.latency_ms for part in parts}, prediction, ()


def _strips(
    summary: StudySummary, policy: Policy, times: Mapping[str, float], latency_ms: float
) -> tuple[UnitStrip, ...]:
    groups = {name: unit["groups"] for name, unit in summary.fixed["space"]["units"].items()}
    names = [name for name in times if name in groups] or list(groups)
    return tuple(
        UnitStrip(
            name=name,
            keep=policy[name].keep,
            groups=groups[name],
            format=policy[name].format,
            weight_bits=FORMATS.get(policy[name].format).weight_bits if policy[name].keep else 0,
            latency_ms=times.get(name),
            latency_share=times[name] / latency_ms if name in times else None,
        )
        for name in names
    )
