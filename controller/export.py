"""`paretrim export`: from a pick to a verified artifact."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

from controller.artifact_job import JOB_FILE, job_text
from controller.early_exit_options import EarlyExitOptions
from controller.errors import UsageError
from controller.preparation import describe
from controller.recovery.options import RecoveryOptions
from controller.recovery.training import run_recovery
from controller.registry.client import RegistryError
from controller.registry.names import Registration
from controller.registry.registration import check_reachable, run_register
from controller.registry.report import RegisteredVersion
from controller.results import ExitSummary, ExportSummary
from controller.storage.engine import open_existing
from controller.storage.repository import Repository
from controller.study_summary import StudySummary, summarise
from search_spaces.policy import Policy
from workers.export.artifact import ArtifactError, ExportRequest, check_place, export_artifact
from workers.export.card import render_card
from workers.export.early_exit.exiting_model import EarlyExit
from workers.export.early_exit.plan import EarlyExitError, check_call, plan_early_exit
from workers.export.report import ExportReport
from workers.protocol import WorkerSpec
from workers.trial import TrialWorker


def run_export(
    study: str,
    storage: str,
    *,
    pick: str | None,
    trial: int | None,
    out: Path,
    recovery: RecoveryOptions | None = None,
    early_exit: EarlyExitOptions | None = None,
    registration: Registration | None = None,
) -> ExportSummary:
    """Export one policy of a study, verify the artifact in a process of its own, and register it if asked to.

    Args:
        study: Name of the study.
        storage: URL of its database.
        pick: Rule that picks a member of the front; None where a trial is given.
        trial: Number of a trial; None where a rule is given.
        out: Folder of the artifact, new or empty.
        recovery: How the model is trained before it is exported; None exports what was searched.
        early_exit: Lets examples leave early whose class is clear by then; None exports without.
        registration: Where the verified artifact is registered; None leaves it a folder.

    Raises:
        UsageError: No such study or trial, or no member that the rule asks for; or no early exit can be had or gains.
        RecoveryError: The training failed.
        ArtifactError: The artifact differs from what was searched, or trained; nothing was released.
        RegistryError: MLflow does not answer or does not take the artifact, which stays where it is.
    """
    try:
        check_place(out)
    except ArtifactError as error:
        raise UsageError(str(error)) from error
    summary = summarise(Repository(open_existing(storage)), study)
    number, explanation = _choose(summary, pick, trial)
    uri = None if registration is None else registration.tracking_uri or summary.job.mlflow.tracking_uri
    if uri is not None:
        check_reachable(uri)
    report = _export(summary, number, storage, out, recovery, early_exit)
    registered = None
    if registration is not None and uri is not None:
        registered = _register(out, uri, registration)
    warning = "" if report.recovery is not None else summary.flattery_warning(report.policy_digest)
    return replace(_result(report, out, explanation, registered), warning=warning)


def _register(out: Path, uri: str, registration: Registration) -> RegisteredVersion:
    try:
        return run_register(out, uri, name=registration.name, alias=registration.alias)
    except RegistryError as error:
        command = f"paretrim register {shlex.quote(str(out))} --alias {registration.alias}"
        raise RegistryError(f"the artifact is verified and stays in {out}; {error}; then: {command}") from error


def _export(
    summary: StudySummary,
    number: int,
    storage: str,
    out: Path,
    recovery: RecoveryOptions | None,
    early_exit: EarlyExitOptions | None,
) -> ExportReport:
    policy = summary.trial(number).policy
    job = summary.job.model_copy(update={"storage": storage})
    spec = describe(job).spec
    if early_exit is not None:
        _check_exit(spec)
    worker = TrialWorker(spec)
    _check_unchanged(summary, worker)
    command = f"paretrim export {shlex.quote(summary.record.name)} --trial {number} --out {shlex.quote(str(out))}"
    trained = None
    if recovery is not None:
        command += recovery.words
        found = run_recovery(worker, policy, recovery.apply(job.recovery), tune=recovery.tune)
        worker.adopt(policy, found.model)
        trained = found.report
    found_exit = None
    if early_exit is not None:
        command += early_exit.words
        found_exit = _plan_exit(worker, policy, early_exit)
    card = partial(render_card, spec=spec, structure=worker.structure, policy=policy, command=command)
    return export_artifact(
        worker,
        ExportRequest(
            spec=spec,
            study=summary.record.name,
            trial=number,
            policy=policy,
            out=out.absolute(),
            render_card=card,
            recovery=trained,
            early_exit=found_exit,
            texts={JOB_FILE: job_text(summary.job)},
        ),
    )


def _check_exit(spec: WorkerSpec) -> None:
    try:
        check_call(spec)
    except EarlyExitError as error:
        raise UsageError(str(error)) from error


def _plan_exit(worker: TrialWorker, policy: Policy, options: EarlyExitOptions) -> EarlyExit:
    try:
        return plan_early_exit(worker, policy, tolerance=options.tolerance)
    except EarlyExitError as error:
        raise UsageError(str(error)) from error


def _check_unchanged(summary: StudySummary, worker: TrialWorker) -> None:
    """Refuse to export from a model, data or a table that are no longer those of the search."""
    fixed = json.loads(summary.record.fixed_json)
    changed = [
        what
        for what, before, now in (
            ("the model or its data", fixed["evaluation"], worker.evaluation_digest),
            ("the latency table", fixed["target"], worker.table_checksum),
        )
        if before != now
    ]
    if changed:
        raise UsageError(
            f"an export ships what was searched; {' and '.join(changed)} of study {summary.record.name!r} changed "
            "since; put back what the search used, or search again under another name"
        )


def _choose(summary: StudySummary, pick: str | None, trial: int | None) -> tuple[int, str]:
    if trial is not None:
        return trial, f"trial {trial}, as asked"
    if pick is None or summary.dense is None:
        raise UsageError(f"an export takes a pick or a trial of a study with scores; study {summary.record.name!r}")
    picked = summary.pick(pick)
    return picked.trial, picked.explanation


def _result(report: ExportReport, out: Path, explanation: str, registered: RegisteredVersion | None) -> ExportSummary:
    holdout = report.splits["holdout"]
    return ExportSummary(
        study=report.study,
        trial=report.trial,
        policy_digest=report.policy_digest,
        artifact=out.absolute(),
        explanation=explanation,
        metric=report.metric,
        searched_quality=holdout.searched_metric,
        unrecovered_quality=None if report.recovery is None else report.recovery.before["holdout"],
        exported_quality=holdout.metric,
        dense_quality=report.dense_metric["holdout"],
        max_logits_difference=holdout.max_logit_difference,
        predicted_latency_ms=report.latency_predicted_ms,
        predicted_low_ms=report.latency_low_ms,
        predicted_high_ms=report.latency_high_ms,
        measured_latency_ms=report.latency_measured_ms,
        dense_latency_ms=report.dense_latency_measured_ms,
        predicted_size_bytes=report.size_predicted_bytes,
        measured_size_bytes=report.size_file_bytes,
        dense_size_bytes=report.dense_size_bytes,
        early_exit=_exit_summary(report),
        predicted_for=report.predicted_for,
        registered=registered,
    )


def _exit_summary(report: ExportReport) -> ExitSummary | None:
    if report.early_exit is None:
        return None
    forecast, measured = report.early_exit.forecast, report.early_exit.measured
    return ExitSummary(
        block=forecast.block,
        share=measured.shares["holdout"],
        whole_quality=report.early_exit.whole_metric["holdout"],
        expected_latency_ms=forecast.expected_ms,
        mean_latency_ms=measured.mean_ms,
        whole_mean_latency_ms=measured.whole_mean_ms,
        dense_mean_latency_ms=measured.dense_mean_ms,
    )
