"""`paretrim explain`: where the time of a trial's policy goes, and why smaller is not always faster."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from controller.errors import UsageError
from controller.explanation.report import ExplainReport, TimeRow
from controller.explanation.savings import savings_of
from controller.explanation.words import choice_text, finding_of, sentences_of, verdict_of
from controller.job import JobSpec
from controller.job_file import anchored
from controller.latency_words import latency_sentence, margin_of
from controller.plots.explanation import explain_html, explain_png
from controller.preparation import Description, describe, work_folder
from controller.retargeting.target_change import TargetChange, describe_target
from controller.safe_writing import write_whole
from controller.storage.engine import open_existing
from controller.storage.repository import Repository
from controller.study_summary import StudySummary, check_same_table, summarise
from controller.tables.request import profile_command
from evaluators.latency.breakdown import Breakdown, PartTime, break_down
from evaluators.latency.idle_choices import idle_choices, tolerance_of
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import LatencyTable, check_fingerprint, load_table
from evaluators.latency.workload import Operator, operators
from evaluators.size import size_bytes
from search_spaces.policy import Policy
from workers.targets.device import DEVICES


def run_explain(study: str, storage: str, *, trial: int, change: TargetChange, out: Path | None) -> ExplainReport:
    """Say where the time of a trial's policy goes on the study's target, or on that of another table.

    Nothing is loaded but the model's configuration and the table, and nothing is measured.

    Args:
        study: Name of the study.
        storage: URL of its database.
        trial: Number of the trial; 0 is the dense model.
        change: Another table, and whether it may be of other hardware; without a table the study's own is taken.
        out: Folder for page, picture and JSON; None writes them beside the study's report.

    Raises:
        UsageError: No such study or trial, or its table is no longer that of the search; or planning is allowed without
            another table.
        TableError: The table can't be read.
        ForeignTableError: The other table was measured on other hardware, and that is not allowed.
        MissingEntryError: The table lacks an operator of the policy.
    """
    _check_change(change)
    summary = summarise(Repository(open_existing(storage)), study)
    job = _job_on(summary, storage, change)
    summary.trial(trial)
    description = describe(job)
    table = load_table(description.table)
    if change.table is None:
        check_same_table(summary, table)
    foreign = bool(summary.foreign) if change.table is None else _is_foreign(job, table)
    measured_on = summary.measured_on if change.table is None else None
    predictor = LatencyPredictor(
        table,
        description.workload,
        structure=description.structure,
        profile_command=profile_command(description.request(()), foreign=foreign or table.target != job.target.name),
        allow_extrapolation=job.target.allow_extrapolation,
    )
    report = _report(summary, job, trial, description, table, predictor, foreign=foreign, measured_on=measured_on)
    return _write(report, out or work_folder(storage) / "reports" / study)


def _check_change(change: TargetChange) -> None:
    given = [
        option
        for option, is_given in (
            ("--allow-foreign-table", change.allow_foreign_table),
            ("--extrapolate", change.allow_extrapolation),
        )
        if is_given
    ]
    if given and change.table is None:
        raise UsageError(
            f"{' and '.join(given)} {'say' if len(given) > 1 else 'says'} what another table may lack; without one a "
            "policy is explained as its search priced it; add --table FILE, or leave the option out"
        )


def _job_on(summary: StudySummary, storage: str, change: TargetChange) -> JobSpec:
    job = summary.job.model_copy(update={"storage": storage})
    if change.table is None:
        return job
    target = change.applied_to(job.target, load_table(change.table))
    if target.name != job.target.name:
        raise UsageError(
            f"a policy is explained on a table of its own target, as formats have no kernels on others; study "
            f"{summary.record.name!r} is for {job.target.name}, the table for {target.name}; see `paretrim retarget`"
        )
    return anchored(job.model_copy(update={"target": target}), Path.cwd())


def _is_foreign(job: JobSpec, table: LatencyTable) -> bool:
    here = DEVICES.get(job.target.name)(job.target.threads).fingerprint()
    return bool(check_fingerprint(table, here, target=job.target.name, allow_foreign=job.target.allow_foreign_table))


def _report(
    summary: StudySummary,
    job: JobSpec,
    trial: int,
    description: Description,
    table: LatencyTable,
    predictor: LatencyPredictor,
    *,
    foreign: bool,
    measured_on: str | None,
) -> ExplainReport:
    record = summary.trial(trial)
    policy, name = record.policy, record.name
    structure, space = description.structure, description.space
    dense_policy = space.dense_policy()
    here, dense = (break_down(structure, each, predictor) for each in (policy, dense_policy))
    prediction = predictor.predict(structure, policy)
    tolerance = tolerance_of(table)
    groups = {unit.name: unit.groups for unit in structure.units}
    size_ratio = size_bytes(structure, policy) / size_bytes(structure, dense_policy)
    found = idle_choices(space, policy, predictor, tolerance=tolerance)
    savings = savings_of(record, summary.trials, space, predictor, idle=found.idle)
    extrapolated = len(predictor.extrapolated(operators(structure, policy, description.workload)))
    return ExplainReport(
        study=summary.record.name,
        trial=trial,
        name=name,
        target=describe_target(job.target),
        table=description.table,
        latency_ms=here.latency_ms,
        low_ms=prediction.low_ms,
        high_ms=prediction.high_ms,
        dense_ms=dense.latency_ms,
        size_ratio=size_ratio,
        tolerance=tolerance,
        rows=tuple(_rows(here, dense, policy, groups)),
        findings=tuple(
            finding_of(idle, groups[idle.unit], dense_ms=dense.latency_ms, tolerance=tolerance) for idle in found.idle
        ),
        savings=savings.changes,
        verdict=verdict_of(found, is_dense=policy == dense_policy),
        untold=found.untold,
        sentences=(
            *sentences_of(name, here, dense, size_ratio=size_ratio),
            *([] if savings.note is None else [savings.note]),
            _latency_sentence(predictor, foreign=foreign, extrapolated=extrapolated > 0),
        ),
        foreign_table=foreign,
        measured_on=measured_on,
        extrapolated=extrapolated,
    )


def _latency_sentence(predictor: LatencyPredictor, *, foreign: bool, extrapolated: bool) -> str:
    return latency_sentence(margin_of(predictor.correction), foreign=foreign, extrapolated=extrapolated)


def _rows(here: Breakdown, dense: Breakdown, policy: Policy, groups: dict[str, int]) -> Iterator[TimeRow]:
    def row(name: str, now_ms: float, before_ms: float, *, choice: str = "", operator: str | None = None) -> TimeRow:
        return TimeRow(
            name=name,
            operator=operator,
            choice=choice,
            latency_ms=now_ms,
            share=now_ms / here.latency_ms,
            dense_ms=before_ms,
            dense_share=before_ms / dense.latency_ms,
        )

    for now, before in zip(here.parts, dense.parts, strict=True):
        name = now.name or "outside units"
        choice = choice_text(policy[now.name], groups[now.name]) if now.name else ""
        yield row(name, now.latency_ms, before.latency_ms, choice=choice)
        for sort, (now_ms, before_ms) in _by_sort(now, before).items():
            yield row(name, now_ms, before_ms, operator=sort)
    yield row("overhead of a call", here.overhead_ms, dense.overhead_ms)
    yield row("total", here.latency_ms, dense.latency_ms)


def _by_sort(now: PartTime, before: PartTime) -> dict[str, tuple[float, float]]:
    """Times of a part by what is computed, whatever the shape and the format: now and before."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for place, part in enumerate((now, before)):
        for time in part.operators:
            found[_sort(time.operator)][place] += time.latency_ms
    return {sort: (times[0], times[1]) for sort, times in found.items()}


def _sort(operator: Operator) -> str:
    return " ".join(word for word in (operator.kind.value.replace("_", " "), operator.function) if word)


def _write(report: ExplainReport, folder: Path) -> ExplainReport:
    """Write page, picture and JSON; return the report with their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"explain-{report.trial}"
    contents = {
        folder / f"{stem}.html": explain_html(report).encode(),
        folder / f"{stem}.png": explain_png(report),
        folder / f"{stem}.json": (json.dumps(report.to_dict(), indent=2) + "\n").encode(),
    }
    for path, content in contents.items():
        write_whole(path, content)
    return replace(report, files=tuple(contents))
