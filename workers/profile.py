"""Measures a latency table: of the operators that a space needs as many as it takes to know all, on one target."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from evaluators.latency.table import LatencyTable
from evaluators.latency.workload import Operator
from search_spaces.units import ModelStructure
from workers.profiling.caches import curve_operators
from workers.profiling.other_work import OtherWork
from workers.profiling.refinement import blocks_of
from workers.profiling.required import grid_operators, required_operators, working_set_bytes
from workers.profiling.sampling import ProfileBudget
from workers.profiling.session import OnOverrun, ProfileSession, Progress, reference_of
from workers.profiling.threads import pinned
from workers.profiling.whole import WholeModel, measure_correction
from workers.targets.device import DEVICES

__all__ = [
    "ProfileBudget",
    "WholeModel",
    "grid_operators",
    "measure_correction",
    "profile",
    "required_operators",
    "working_set_bytes",
]


def profile(
    operators: Iterable[Operator],
    structure: ModelStructure,
    *,
    target: str,
    threads: int,
    out: Path | None = None,
    budget: ProfileBudget | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    on_overrun: OnOverrun | None = None,
) -> LatencyTable:
    """Measure operators on a target of this machine, as many of them as it takes to know the time of all.

    Of many widths a coarse grid is measured first, then split wherever interpolation errs by more than 3 % at points
    within a cell, or by more than half the spread at that point.

    Args:
        operators: What the table must answer for.
        structure: Model that they belong to; its size decides from which cache weights come.
        target: Name of a target.
        threads: Threads of the runtime.
        out: Table file. What it already holds is not measured again, and it is saved while the work goes on.
        budget: How much is measured. When its time is over the grid is not split any more, which is noted.
        seed: Seed of weights, inputs and orders.
        progress: Called after every sample.
        on_overrun: Called with the seconds that the least takes, at most once, where the budget has fewer.

    Returns:
        The table with all that `out` held, a time for all operators, and a cache curve for products of each format.

    Raises:
        ForeignTableError: `out` holds a table of another target, device, runtime or number of threads.
        TableError: `out` is not a valid table.
        ValueError: No operators.
    """
    wanted = tuple(dict.fromkeys(operators))
    if not wanted:
        raise ValueError("a latency table has at least one operator; got none; pass the operators of a space")
    session = ProfileSession(
        DEVICES.get(target)(threads),
        structure,
        reference=reference_of(wanted, structure.base_format),
        target=target,
        out=out,
        budget=budget or ProfileBudget(),
        generator=random.Random(seed),
        progress=progress or (lambda done, total: None),
        on_overrun=on_overrun or (lambda seconds: None),
        other_work=OtherWork(),
    )
    with pinned(threads):
        session.refine(blocks_of(wanted))
        return session.add_curves(curve_operators(wanted))
