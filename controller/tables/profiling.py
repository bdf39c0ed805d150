"""`paretrim profile` and `paretrim calibrate-table`: latency tables of this machine, and how wrong they are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from controller.job import JobSpec
from controller.preparation import describe
from controller.results import Progress
from controller.tables.calibration import CalibrationSummary, calibration_summary
from controller.tables.machine import formats_here, with_kernels
from controller.tables.measuring import (
    MODELS_IN_HASTE,
    OnStage,
    TableRequest,
    calibrate,
    check_available,
    check_folder,
    measure_table,
)
from controller.tables.results import ProfileSummary
from controller.tables.table_lock import measuring_alone
from controller.tables.trust import trust_notes
from evaluators.latency.shipped import check_writable
from evaluators.latency.table import LatencyTable, TableError, load_table
from evaluators.latency.workload import Workload
from search_spaces.space import SpaceConfig, build_space
from workers.model import ModelConfig, load_structure
from workers.profile import grid_operators, required_operators
from workers.profiling.session import CHUNK
from workers.targets import TARGETS, TargetConfig
from workers.trial import workload_of

OnProgress = Callable[[Progress], None]
OVERRUN = 1.1
"""From so many times the given time on, a run says that it took longer."""


def run_profile(
    model: ModelConfig, target: TargetConfig, out: Path, on_progress: OnProgress, *, minutes: float | None = None
) -> ProfileSummary:
    """Measure the operators of a model on a grid of widths, and a correction on whole models.

    What the file already holds is not measured again.

    Args:
        model: The model.
        target: Runtime, threads and workload.
        out: The file.
        on_progress: Told of every stage.
        minutes: Time for all of it, about; None has no limit.

    Raises:
        ModelError: The model can't be read.
        PreflightError: The target is not available here.
        HeldError: Another process measures the file.
        ForeignTableError: The file holds a table of other hardware.
    """
    check_available(target)
    request = _request(model, target, out)
    declared = TARGETS.get(target.name)
    operators = grid_operators(
        request.space.structure,
        request.workload,
        formats=formats_here(target),
        channel_multiple=declared.channel_multiple,
    )
    return _measure(replace(request, operators=operators, minutes=minutes), on_progress)


def run_space_profile(
    job: JobSpec, on_progress: OnProgress, *, out: Path | None = None, minutes: float | None = None
) -> ProfileSummary:
    """Measure what the space of a job can reach, and a correction on whole models.

    Args:
        job: Model, space and target.
        on_progress: Told of every stage.
        out: The file; None takes the one that the job's search looks for.
        minutes: Time for all of it, about; None has no limit.

    Raises:
        HeldError: Another process measures the file.
        ValueError: The model, the space, the workload or the file does not fit; the types say which.
    """
    description = describe(job)
    request = description.request(required_operators(description.space, description.workload), minutes=minutes)
    return _measure(request if out is None else replace(request, out=out), on_progress)


def run_calibration(
    table: Path,
    on_progress: OnProgress,
    *,
    job: JobSpec | None = None,
    model: ModelConfig | None = None,
    batch: int = 1,
    sequence_length: int | None = None,
    minutes: float | None = None,
) -> CalibrationSummary:
    """Measure whole models end to end, and fit a table's correction for a workload on them.

    Args:
        table: The file; its target and number of threads are taken.
        on_progress: Told of every stage.
        job: Gives model, space and workload.
        model: The model, in place of a job: all formats with kernels here, and the space's default widths.
        batch: Examples in one call, without a job.
        sequence_length: Tokens of an example, without a job; None where the model fixes them.
        minutes: Time for all of it, about; None has no limit.

    Raises:
        HeldError: Another process measures the table.
        ValueError: Neither job nor model is given, or the table is malformed, foreign or lacks operators of the space.
    """
    started = time.monotonic()
    check_writable(table)
    request = replace(_calibrated_by(table, job, model, batch, sequence_length), minutes=minutes)
    check_folder(table)
    with measuring_alone(table, waits=False, on_wait=lambda words: None):
        # Whoever measured it until now may have changed it.
        calibrated = calibrate(request, load_table(table), _stages(on_progress, started))
    return calibration_summary(request, calibrated, seconds=time.monotonic() - started)


def _calibrated_by(
    table: Path, job: JobSpec | None, model: ModelConfig | None, batch: int, sequence_length: int | None
) -> TableRequest:
    """Model, space and workload of a calibration; see `run_calibration`."""
    known = load_table(table)
    if known.target not in TARGETS:
        raise TableError(f"a table is calibrated on its own target; got {known.target!r}; known: {', '.join(TARGETS)}")
    threads = known.fingerprint.threads
    if job is not None:
        target = job.target.model_copy(update={"name": known.target, "threads": threads, "table": table})
        return describe(job.model_copy(update={"target": target})).request(())
    if model is not None:
        config = TargetConfig(
            name=known.target, batch=batch, sequence_length=sequence_length, threads=threads, table=table
        )
        return _request(model, config, table)
    raise ValueError("a table is calibrated with a model or a job; got neither; name one")


def _request(model: ModelConfig, target: TargetConfig, out: Path) -> TableRequest:
    """A request that asks for no operators yet, with the default space of a model."""
    structure = load_structure(model)
    declared = TARGETS.get(target.name)
    space = build_space(
        structure,
        with_kernels(SpaceConfig(), target.model_copy(update={"table": None}), structure),
        target_formats=declared.formats,
        channel_multiple=declared.channel_multiple,
    )
    workload: Workload = workload_of(target, structure)
    return TableRequest(model=model, target=target, space=space, workload=workload, operators=(), out=out)


def _measure(request: TableRequest, on_progress: OnProgress) -> ProfileSummary:
    started = time.monotonic()
    check_writable(request.out)
    before = load_table(request.out) if request.out.exists() else None
    try:
        table = measure_table(request, _stages(on_progress, started), waits=False)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(request.out, before)) from None
    return _summary(request, table, before, seconds=time.monotonic() - started)


def _kept(out: Path, before: LatencyTable | None) -> str:
    """What a profile that is interrupted leaves."""
    rows = len(load_table(out).entries) if out.exists() else 0
    added = rows - (len(before.entries) if before else 0)
    groups = f"rows are saved in groups of up to {CHUNK}, and none of an unfinished group"
    return f"{added} rows of this run are kept, {rows} in all; {groups}"


def _stages(on_progress: OnProgress, started: float) -> OnStage:
    def on_stage(stage: str, done: int, total: int) -> None:
        elapsed_s = time.monotonic() - started
        on_progress(Progress(stage=f"{stage} ({done} of {total})", elapsed_s=elapsed_s))

    return on_stage


def _summary(
    request: TableRequest, table: LatencyTable, before: LatencyTable | None, *, seconds: float
) -> ProfileSummary:
    spreads = [spread for entry in table.entries if (spread := entry.relative_spread) is not None]
    mark, fit = table.fingerprint, table.correction(request.workload, request.space.structure)
    return ProfileSummary(
        target=table.target,
        table=request.out.absolute(),
        entries=len(table.entries),
        added=len(table.entries) - (len(before.entries) if before else 0),
        needed=len(request.operators),
        fingerprint=f"{mark.device}, {mark.runtime} {mark.runtime_version}, {mark.threads} thread(s)",
        spread=statistics.median(spreads) if spreads else None,
        correction_models=0 if fit is None else fit.models,
        correction_error_pct=None if fit is None else fit.median_error_pct,
        correction_max_error_pct=None if fit is None else fit.max_error_pct,
        notes=(
            *table.provenance.notes,
            *trust_notes(table, request.space, request.workload),
            *_run_notes(request, table, before, seconds),
        ),
        seconds=seconds,
    )


def _run_notes(
    request: TableRequest, table: LatencyTable, before: LatencyTable | None, seconds: float
) -> Iterator[str]:
    """What is to be said of this run alone."""
    if request.minutes is not None and seconds > OVERRUN * 60 * request.minutes:
        yield (
            f"this took {seconds / 60:.1f} min where {request.minutes:g} were given: two rounds of every operator of a "
            f"coarse grid and {MODELS_IN_HASTE} whole models, or all where there are fewer, are measured whatever the "
            "time"
        )
    kept = {correction.key for correction in table.corrections}
    mine = table.stored_correction(request.workload, request.space.structure)
    for correction in before.corrections if before else ():
        if correction.key not in kept and (mine is None or correction.key != (*mine.key[:2], "")):
            yield (
                f"the correction for {correction.name} is left out, as times or cache curves changed that it was "
                "fitted on; `paretrim calibrate-table` fits a new one"
            )
