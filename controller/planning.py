"""`paretrim validate`: what a job would do, without a trial and without measuring anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from controller.job import JobSpec
from controller.job_plan import JobPlan, PlanUnit
from controller.latency_words import latency_sentence
from controller.preparation import (
    Description,
    PricedSpace,
    cheapest,
    describe,
    price_by_table,
    unreachable,
    unreachable_memory,
)
from controller.tables.machine import check_measurable
from controller.tables.tools import check_table, list_tables
from evaluators.costs import least_energy_mj, least_size_bytes
from evaluators.latency.lookup import MissingEntryError
from evaluators.latency.table import ForeignTableError
from evaluators.memory import PeakMemory
from evaluators.size import size_bytes, unit_bytes
from search_spaces.policy import Choice
from workers.data_outline import check_data_outline
from workers.targets import TARGETS


def plan(job: JobSpec, *, read_data: bool = False) -> JobPlan:
    """Describe a job's units, the size of its space, the dense model's costs and the bounds that can be reached.

    Latencies and energies are known where the job names a table, or where this machine was measured before.

    Args:
        job: The job.
        read_data: Whether all rows are read and encoded, as a search does first; else files are looked at only.

    Raises:
        ValueError: The model, the space, the workload or the table does not fit; the types say which.
    """
    description = describe(job)
    _check_data(description, read_data=read_data)
    if job.target.table is None:
        check_measurable(description.request(()))
    measured = job.target.table is not None or description.table.exists()
    priced = price_by_table(job, description) if measured else None
    space = description.space
    memory = PeakMemory(description.structure, description.workload, TARGETS.get(job.target.name).memory_plan)
    least_memory = memory.least_bytes(space)
    dense = None if priced is None else priced.costs.costs(space.dense_policy())
    predicted = None
    if priced is not None:
        predicted = priced.costs.predictor.predict(description.structure, space.dense_policy())
    counted = (*_unreachable_size(job, description), *unreachable_memory(job, least_memory))
    out_of_reach = counted if priced is None else unreachable(job, priced)
    return JobPlan(
        study=job.name,
        architecture=description.structure.architecture,
        units=_units(description, priced),
        space_size=space.size,
        dense_low_ms=None if predicted is None else predicted.low_ms,
        dense_high_ms=None if predicted is None else predicted.high_ms,
        latency_margin_pct=None if priced is None else priced.latency_margin_pct,
        latency_sentence=_latency_sentence(priced),
        dense_latency_ms=None if dense is None else dense.latency_ms,
        dense_size_bytes=size_bytes(description.structure, space.dense_policy()),
        min_latency_ms=None if priced is None else cheapest(priced)[0],
        min_size_bytes=least_size_bytes(space),
        dense_energy_mj=None if dense is None else dense.energy_mj,
        min_energy_mj=None if priced is None else least_energy_mj(space, priced.costs.energy),
        energy_basis=None if dense is None else dense.energy_basis,
        dense_peak_memory_bytes=memory.policy_bytes(space.dense_policy()),
        min_peak_memory_bytes=least_memory,
        constraints_reachable=not out_of_reach,
        unreachable=out_of_reach,
        table_source=_source(job, description, measured=measured),
        foreign_table=priced is not None and bool(priced.foreign),
        foreign=() if priced is None else priced.foreign,
        extrapolated=0 if priced is None else priced.extrapolated,
        trials=job.search.trials,
        data_read=read_data,
    )


def _latency_sentence(priced: PricedSpace | None) -> str:
    if priced is None:
        return ""
    margin_pct = priced.latency_margin_pct
    return latency_sentence(margin_pct, foreign=bool(priced.foreign), extrapolated=priced.extrapolated > 0)


def _check_data(description: Description, *, read_data: bool) -> None:
    spec = description.spec
    if not read_data:
        check_data_outline(spec.data, task=spec.model.task)
        return
    from workers.trial import check_data

    check_data(spec)


def _units(description: Description, priced: PricedSpace | None) -> tuple[PlanUnit, ...]:
    base = description.space.base_format
    dense = description.space.dense_policy()
    inside = None if priced is None else priced.costs.predictor.for_policy(description.structure, dense)
    rows = []
    for unit_space in description.space.unit_spaces:
        unit = unit_space.unit
        whole = Choice(unit.groups, base)
        rows.append(
            PlanUnit(
                name=unit.name,
                kind=unit.kind.value,
                groups=unit.groups,
                keeps=unit_space.keeps,
                formats=unit_space.formats,
                choices=len(unit_space.choices(base)),
                latency_ms=None if inside is None else inside.unit_ms(unit, whole),
                size_bytes=unit_bytes(unit, whole),
            )
        )
    return tuple(rows)


def _unreachable_size(job: JobSpec, description: Description) -> tuple[str, ...]:
    bound, smallest = job.constraints.max_size_bytes, least_size_bytes(description.space)
    if bound is None or smallest <= bound:
        return ()
    return (f"max_size_bytes is {bound:,}, and the smallest policy has {smallest:,} bytes",)


def _source(job: JobSpec, description: Description, *, measured: bool) -> str:
    if job.target.table is not None:
        return str(job.target.table)
    if measured:
        return f"{description.table}, measured on this machine"
    shipped = next(_shipped_for(job), None)
    also = f"; `target: {{table: {shipped}}}` takes one that comes with Paretrim and holds here" if shipped else ""
    return f"none yet: `paretrim search` measures this machine first{also}"


def _shipped_for(job: JobSpec) -> Iterator[str]:
    """Tables of the package that a search of the job would take, with a correction for its model and workload."""
    for table in list_tables():
        if table.target != job.target.name or table.differences:
            continue
        try:
            coverage = check_table(Path(table.name), job).coverage
        except (ForeignTableError, MissingEntryError):
            continue
        if coverage is not None and coverage.corrected and coverage.refusal is None and not coverage.extrapolated:
            yield table.name
