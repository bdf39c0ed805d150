"""Measures what a latency table lacks on this machine: operators, then the correction on whole models."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from controller.errors import PreflightError
from controller.tables.machine import check_measurable, check_threads
from controller.tables.request import OnStage as OnStage
from controller.tables.request import TableRequest as TableRequest
from controller.tables.request import check_available as check_available
from controller.tables.request import profile_command as profile_command
from controller.tables.table_lock import measuring_alone
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.table import LatencyTable, check_fingerprint, load_table
from evaluators.latency.workload import Operator
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace
from workers.model import load_model
from workers.profile import ProfileBudget, measure_correction, profile, required_operators, working_set_bytes
from workers.profiling.policies import spread_policies
from workers.profiling.whole import WholeModel
from workers.targets.device import DEVICES

CORRECTION_SEED = 101
"""Seed of the policies that corrections are fitted on; whoever checks a correction draws others."""
MODELS_BY_BYTES = ((100 * 2**20, 12), (2**30, 10))
"""Whole models that a correction is fitted on, by the bytes of the units' weights, at most so many."""
FEWEST_MODELS = 8
"""Whole models of a larger model."""
MOST_SPREAD_S = 60.0
"""Timing the models is spread over as long a time as making them took, or this long."""
MODELS_IN_HASTE = 6
"""When time is over, no more than so many are made."""
FEWEST_POLICIES = 2
"""Policies that a correction takes; a space of fewer has none."""
OPERATORS_SHARE = 0.7
"""Share of a limited time that operators may take; the rest is for whole models."""


def check_folder(out: Path) -> None:
    """Make the folder that a table goes to, and check that files can be written there, before anything is measured.

    Raises:
        PreflightError: They can't.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise PreflightError(
            f"a table is saved while it is measured; {str(out.parent)!r} can't be written to ({error.strerror}); name "
            "another file: --out"
        ) from error


def measure_table(request: TableRequest, on_stage: OnStage, *, waits: bool = True) -> LatencyTable:
    """Measure what a table file lacks on this machine: operators, then the correction on whole models.

    Args:
        request: What the table has to answer for, and its file.
        on_stage: Told of every step.
        waits: Where another process measures the file, wait for it and go on from what it leaves; else refuse.

    Raises:
        HeldError: Another process measures the file, and `waits` is false.
        PreflightError: The target is not available here, a format has no kernel here, there are fewer CPUs than
            threads, or the file can't be written.
        ForeignTableError: The file holds a table of another device, runtime, number of threads or target.
    """
    check_available(request.target)
    check_measurable(request)
    check_folder(request.out)
    with measuring_alone(request.out, waits=waits, on_wait=lambda words: on_stage(words, 0, 0)):
        return _measure_missing(request, on_stage)


def _measure_missing(request: TableRequest, on_stage: OnStage) -> LatencyTable:
    started = time.monotonic()
    before = load_table(request.out).entries if request.out.exists() else ()
    table = _profile(request, request.operators, on_stage)
    if holds(request, table, grew=len(table.entries) > len(before)):
        return table
    # Policies of the correction come from the whole space, whatever was asked for.
    if missing := _missing(request, table):
        table = _profile(request, missing, on_stage)
    policies = _policies(request, table)
    if len(policies) < FEWEST_POLICIES:
        return table
    return _fit(request, table, policies, on_stage, late=_late(request, started))


def holds(request: TableRequest, table: LatencyTable, *, grew: bool) -> bool:
    """Whether the table's correction for a request needs no new fit.

    It does where the times of its models' operators changed, where time was over before all models were measured, and
    where the space reaches beyond the one that they are from. One that does not say what it was fitted on holds until
    the table grows.

    Args:
        request: Workload and space.
        table: The table as it is now.
        grew: Whether it gained rows since the correction was looked at last.
    """
    stored = table.stored_correction(request.workload, request.space.structure)
    if stored is None:
        return False
    if stored.basis is None:
        return not grew
    return not stored.is_unfinished and not stored.basis.lacks(request.space) and stored.basis.holds(table.entries)


def calibrate(request: TableRequest, table: LatencyTable, on_stage: OnStage) -> LatencyTable:
    """Measure policies that are spread over a space end to end, fit a table's correction on them, and save the table.

    Args:
        request: Model, space, workload and file.
        table: The table, measured on this machine.
        on_stage: Told of every step.

    Raises:
        PreflightError: The target is not available here, there are fewer CPUs than threads, or the space has a single
            policy.
        ForeignTableError: The table is of another device, runtime, number of threads or target.
        MissingEntryError: The table lacks an operator of the space.
    """
    late = _late(request, time.monotonic())
    check_available(request.target)
    here = DEVICES.get(request.target.name)(request.target.threads).fingerprint()
    check_fingerprint(table, here, target=request.target.name)
    check_threads(request.target)
    predictor = LatencyPredictor(table, request.workload, profile_command=profile_command(request))
    predictor.check(required_operators(request.space, request.workload))
    policies = _policies(request, table)
    if len(policies) < FEWEST_POLICIES:
        raise PreflightError(
            f"a correction is fitted on two or more policies; the space has {len(policies)}; offer more "
            "keep ratios or formats, or name the model without a job (--model), whose default space is taken"
        )
    return _fit(request, table, policies, on_stage, late=late)


def _fit(
    request: TableRequest,
    table: LatencyTable,
    policies: Mapping[str, Policy],
    on_stage: OnStage,
    *,
    late: float | None,
) -> LatencyTable:
    """Measure policies end to end, fit the correction and save the table; `late` is when time is over."""
    from workers.whole_models import export_whole_models

    device = DEVICES.get(request.target.name)(request.target.threads)
    started, least = time.monotonic(), _least(request, table)
    with tempfile.TemporaryDirectory(prefix="paretrim-correction-") as folder:
        models: list[WholeModel] = []
        for model in export_whole_models(
            load_model(request.model),
            policies,
            request.workload,
            device,
            Path(folder),
            progress=lambda done, total: on_stage("exporting models for the correction", done, total),
        ):
            models.append(model)
            if late is not None and time.monotonic() > late and len(models) >= least:
                break
        table = measure_correction(
            table,
            request.workload,
            models,
            space=request.space,
            wanted=len(policies),
            # Small models are timed within seconds, which may all be slow ones.
            spread_s=min(time.monotonic() - started, MOST_SPREAD_S),
            late=late,
            progress=lambda done, total: on_stage("timing whole models", done, total),
            meter=device.energy_meter(),
        )
    table.save(request.out)
    return table


def _late(request: TableRequest, started: float) -> float | None:
    """When a request's time is over, in monotonic seconds."""
    return None if request.minutes is None else started + 60 * request.minutes


def _profile(request: TableRequest, wanted: Iterable[Operator], on_stage: OnStage) -> LatencyTable:
    seconds = None if request.minutes is None else 60 * OPERATORS_SHARE * request.minutes
    stage = "profiling"

    def tell(least_s: float) -> None:
        nonlocal stage
        given_s = seconds or 0.0
        stage = f"profiling, which takes {least_s / 60:.1f} min at least where {given_s / 60:.1f} were given"

    return profile(
        wanted,
        request.space.structure,
        target=request.target.name,
        threads=request.target.threads,
        out=request.out,
        budget=ProfileBudget(seconds=seconds),
        progress=lambda done, total: on_stage(stage, done, total),
        on_overrun=tell,
    )


def _missing(request: TableRequest, table: LatencyTable) -> list[Operator]:
    """Operators of the space that the table does not answer for."""
    predictor, found = LatencyPredictor(table, request.workload), []
    for operator in required_operators(request.space, request.workload):
        try:
            predictor.operator_ms(operator)
        except MissingEntryError:
            found.append(operator)
    return found


def _policies(request: TableRequest, table: LatencyTable) -> dict[str, Policy]:
    """What the correction is fitted on; drawn by plain sums, so that it does not depend on an earlier correction."""
    plain = table.model_copy(update={"corrections": ()})
    predictor = LatencyPredictor(plain, request.workload)
    return spread_policies(request.space, predictor, _count(request.space), seed=CORRECTION_SEED)


def _least(request: TableRequest, table: LatencyTable) -> int:
    """Whole models that are made whatever the time: more than an earlier run made, so that every run gets further."""
    stored = table.stored_correction(request.workload, request.space.structure)
    return max(MODELS_IN_HASTE, stored.fit.models + 1 if stored is not None and stored.is_unfinished else 0)


def _count(space: SearchSpace) -> int:
    size = working_set_bytes(space.structure, None)
    return next((count for most, count in MODELS_BY_BYTES if size <= most), FEWEST_MODELS)
