"""What a study on another target is compared with: the front that it came from, priced there; and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from controller.counting import count_trials
from controller.front import hypervolume
from controller.plots.retargeting import retarget_html, retarget_png
from controller.preparation import PricedSpace
from controller.progress import counted_share
from controller.report_details import ReportDetails
from controller.report_files import write_report_files
from controller.retargeting.carry_over import to_score_again
from controller.retargeting.report import PricedRow, RetargetResult
from controller.retargeting.target_change import describe_target
from controller.safe_writing import write_whole
from controller.search_result import result_of
from controller.storage.records import TrialRecord
from controller.study_config import Origin
from controller.study_summary import StudySummary
from controller.summary_view import view_of


def outcome_of(
    origin: StudySummary, summary: StudySummary, priced: PricedSpace, *, left_out: int, notes: Sequence[str]
) -> RetargetResult:
    """Compare a study on another target with the one whose trials it began with.

    Args:
        origin: That one.
        summary: The study on the other target.
        priced: Costs on the other target.
        left_out: Scored trials whose policies have no kernels there.
        notes: What else the user should know.
    """
    link = summary.origin
    assert link is not None
    again = to_score_again(
        summary.trials,
        summary.job.objectives,
        summary.job.constraints,
        summary.chance_quality,
        most=len(summary.trials),
    )
    return RetargetResult(
        origin=origin.record.name,
        origin_target=describe_target(origin.job.target),
        result=result_of(summary, notes=tuple(notes)),
        before=_before(origin, summary, priced),
        taken_over=link.trials,
        counts=count_trials(summary.trials[: link.trials], origin.search_examples),
        estimates=sum(trial.stopped_early for trial in summary.trials[: link.trials]),
        left_out=left_out,
        evaluations=sum(is_new(trial, link) and trial.state.is_finished for trial in summary.trials),
        still_estimated=len(again),
        hypervolume_before=_volume_before(origin, summary),
    )


def is_new(trial: TrialRecord, link: Origin) -> bool:
    """Whether a trial was scored for the other target, or is to be."""
    return trial.number >= link.trials and counted_share(trial) > 0


def write_outcome(
    report: RetargetResult, summary: StudySummary, details: ReportDetails, folder: Path
) -> RetargetResult:
    """Write the files of the study, and both fronts as page, picture and JSON; return the report with their paths."""
    files = write_report_files(view_of(summary), folder, details)
    contents = {
        "retarget.html": retarget_html(report).encode(),
        "retarget.png": retarget_png(report),
        "retarget.json": (json.dumps(report.to_dict(), indent=2) + "\n").encode(),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)
    return replace(report, files=(*files, *(folder / name for name in contents)))


def _before(origin: StudySummary, summary: StudySummary, priced: PricedSpace) -> tuple[PricedRow, ...]:
    """The origin's front, priced on both targets."""
    policies = {trial.policy.digest: trial.policy for trial in origin.trials}
    here = {member.policy_digest: member.number for member in reversed(summary.members)}
    on_front = {member.policy_digest for member in summary.front}
    space = priced.description.space
    rows = []
    for member in origin.front:
        policy = policies[member.policy_digest]
        runs = policy == space.dense_policy() or space.contains(policy)
        rows.append(
            PricedRow(
                trial=member.number,
                name=member.name,
                policy_digest=member.policy_digest,
                quality=member.quality,
                latency_before_ms=member.latency_ms,
                latency_ms=priced.costs.costs(policy).latency_ms if runs else None,
                size_bytes=member.size_bytes,
                here=here.get(member.policy_digest),
                on_front=member.policy_digest in on_front,
            )
        )
    return tuple(rows)


def _volume_before(origin: StudySummary, summary: StudySummary) -> float | None:
    """Hypervolume that the origin's front has on the other target, by the scores that it has there."""
    if summary.dense is None:
        return None
    before = {member.policy_digest for member in origin.front}
    members = [member for member in summary.members if member.policy_digest in before]
    return hypervolume(members, summary.job.objectives, dense=summary.dense, chance_quality=summary.chance_quality)
