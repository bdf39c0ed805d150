"""Rows to records and back."""

import json
from collections.abc import Mapping
from typing import Any

from controller.storage.holder import Holder
from controller.storage.records import (
    Controls,
    StudyRecord,
    StudyState,
    TrialRecord,
    TrialRole,
    TrialState,
    canonical_json,
)
from controller.storage.schema import STUDY_SCHEMA_VERSION
from evaluators.latency.table import EnergyBasis
from evaluators.scores import Costs
from search_spaces.policy import Policy


class StudyVersionError(ValueError):
    """A study was written in a form that this program does not read."""


def study_record(row: Mapping[Any, Any]) -> StudyRecord:
    """Read a study.

    Raises:
        StudyVersionError: Another version of the JSON inside rows.
    """
    if row["schema_version"] != STUDY_SCHEMA_VERSION:
        raise StudyVersionError(
            f"this program reads studies of schema_version {STUDY_SCHEMA_VERSION}; got {row['schema_version']} for "
            f"{row['name']!r}; use the paretrim release that wrote it"
        )
    return StudyRecord(
        id=row["id"],
        name=row["name"],
        state=StudyState(row["state"]),
        job_digest=row["job_digest"],
        job_json=row["job_json"],
        fixed_json=row["fixed_json"],
        space_digest=row["space_digest"],
        objectives=tuple(json.loads(row["objectives_json"])),
        fence=row["fence"],
        holder=None if row["holder_json"] is None else Holder.from_json(row["holder_json"]),
        held_since=row["held_since"],
        lease_expires=row["lease_expires_at"],
        controls=controls_of(row),
        created=row["created_at"],
        updated=row["updated_at"],
    )


def controls_of(row: Mapping[Any, Any]) -> Controls:
    """Read what a study's controller is asked for."""
    return Controls(
        stop=row["stop_requested_at"] is not None, parallel=row["wanted_parallel"], trials=row["wanted_trials"]
    )


def trial_record(row: Mapping[Any, Any]) -> TrialRecord:
    """Read a trial."""
    scores = json.loads(row["scores_json"]) if row["scores_json"] else {}
    return TrialRecord(
        number=row["number"],
        role=TrialRole(row["role"]),
        name=row["name"],
        policy=Policy.from_json(row["policy_json"]),
        rung=row["rung"],
        state=TrialState(row["state"]),
        attempt=row["attempt_token"],
        attempts=row["attempt_count"],
        metric=scores.get("metric"),
        quality=row["quality"],
        share=row["share"],
        kl_to_dense=scores.get("kl_to_dense"),
        seconds=scores.get("seconds"),
        costs=Costs(
            latency_ms=row["latency_ms"],
            size_bytes=row["size_bytes"],
            energy_mj=row["energy_mj"],
            energy_basis=None if row["energy_basis"] is None else EnergyBasis(row["energy_basis"]),
            peak_memory_bytes=row["peak_memory_bytes"],
        ),
        repeat_of=row["repeat_of"],
        violations=json.loads(row["violations_json"]) if row["violations_json"] else {},
        reason=row["failure_reason"],
        message=row["failure_message"],
        sampler_attributes=json.loads(row["sampler_json"]) if row["sampler_json"] else {},
        started=row["started_at"],
        finished=row["finished_at"],
    )


def trial_values(study_id: str, record: TrialRecord) -> dict[str, Any]:
    """Write a trial as values of its columns."""
    return {
        "study_id": study_id,
        "number": record.number,
        "role": record.role,
        "name": record.name,
        "policy_digest": record.policy.digest,
        "policy_json": record.policy.to_json(),
        "rung": record.rung,
        "state": record.state,
        "attempt_token": record.attempt,
        "attempt_count": record.attempts,
        "quality": record.quality,
        "share": record.share,
        "latency_ms": record.costs.latency_ms,
        "size_bytes": record.costs.size_bytes,
        "energy_mj": record.costs.energy_mj,
        "energy_basis": record.costs.energy_basis,
        "peak_memory_bytes": record.costs.peak_memory_bytes,
        "scores_json": scores_json(record),
        "repeat_of": record.repeat_of,
        "violations_json": _json_or_none(record.violations),
        "failure_reason": record.reason,
        "failure_message": record.message,
        "sampler_json": _json_or_none(record.sampler_attributes),
        "started_at": record.started,
        "finished_at": record.finished,
    }


def score_values(record: TrialRecord) -> dict[str, Any]:
    """Write what a quality changes of a trial, as values of columns."""
    return {
        "state": record.state,
        "quality": record.quality,
        "share": record.share,
        "scores_json": scores_json(record),
        "finished_at": record.finished,
    }


def scores_json(record: TrialRecord) -> str | None:
    """Write all scores of a trial but those of single examples; None without scores."""
    if record.quality is None:
        return None
    return canonical_json(
        {
            "metric": record.metric,
            "value": record.quality,
            "share": record.share,
            "kl_to_dense": record.kl_to_dense,
            "seconds": record.seconds,
            "latency_ms": record.costs.latency_ms,
            "size_bytes": record.costs.size_bytes,
        }
    )


def _json_or_none(body: Mapping[str, Any]) -> str | None:
    return canonical_json(dict(body)) if body else None
