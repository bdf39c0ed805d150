"""One run of the profiler: what the table file lacks, measured in chunks that are saved as they are done."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from evaluators.latency.identity import model_name
from evaluators.latency.standing import keeps_curves, still_holds
from evaluators.latency.table import Entry, ForeignTableError, LatencyTable, Provenance, load_table
from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.units import ModelStructure
from workers.profiling.caches import REACHES, measure_curves
from workers.profiling.notes import (
    changed_since,
    clock_note,
    company_note,
    cut_note,
    lasting,
    noise_note,
    pace_note,
    unverified_note,
)
from workers.profiling.other_work import OtherWork
from workers.profiling.refinement import Block
from workers.profiling.required import working_set_bytes
from workers.profiling.sampling import MIN_ROUNDS, ProfileBudget, Reference, Samples, sample_rounds
from workers.profiling.threads import cpus_in_use
from workers.targets.device import Device
from workers.targets.undisturbed import undisturbed_ms, undisturbed_spread_ms

CHUNK = 32
"""Operators that are measured together, in rounds, before the table is saved."""
MOST_REPEATS = 3
"""How often operators are measured again that were measured while the machine ran at another speed."""

Progress = Callable[[int, int], None]
"""Called with samples taken and samples in all, as far as it is known what needs to be measured."""
OnOverrun = Callable[[float], None]
"""Called with the seconds that the least takes, once it is known to be more than the budget."""


class ProfileSession:
    """Adds rows to a table.

    Args:
        device: What is measured.
        structure: Model that the operators belong to.
        reference: Operator that is timed between rounds.
        target: Name of the target.
        out: Table file; None keeps the table in memory.
        budget: How much is measured.
        generator: Source of orders and seeds.
        progress: Called after every sample.
        on_overrun: Called at most once, where two rounds of all that was asked for take longer than the budget; what
            that is based on is the time of the first chunk.
        other_work: Watches what else the CPUs do; None watches nothing.

    Raises:
        ForeignTableError: `out` holds a table of another target, device, runtime or number of threads.
        TableError: `out` is not a valid table.
    """

    def __init__(
        self,
        device: Device,
        structure: ModelStructure,
        *,
        reference: Operator,
        target: str,
        out: Path | None,
        budget: ProfileBudget,
        generator: random.Random,
        progress: Progress,
        on_overrun: OnOverrun = lambda seconds: None,
        other_work: OtherWork | None = None,
    ) -> None:
        self._device = device
        self._structure = structure
        self._target = target
        self._out = out
        self._budget = budget
        self._generator = generator
        self._progress = progress
        self._on_overrun = on_overrun
        self._other_work = other_work
        self._reference = Reference(reference, working_set_bytes(structure, reference.format))
        self._table = _existing(out, device, target)
        self._started = time.monotonic()
        self._samples_done = 0
        self._taken: list[Samples] = []
        self._notes: list[str] = []
        self._earlier_notes = self._table.provenance.notes if self._table else ()

    def measure(self, operators: Iterable[Operator]) -> LatencyTable:
        """Measure those of the operators that the table lacks, and return the table.

        Raises:
            ValueError: There are none, and no table.
        """
        known = {entry.operator for entry in self._table.entries} if self._table else set()
        wanted = [operator for operator in dict.fromkeys(operators) if operator not in known]
        # Chunks are mixed so that each is alike in cost, and a drift of the clock tilts none of the widths.
        self._generator.shuffle(wanted)
        for start in range(0, len(wanted), CHUNK):
            self._measure_chunk(wanted[start : start + CHUNK], left=len(wanted) - start)
        self._repeat_slow_chunks()
        if self._table is None:
            raise ValueError("a latency table has at least one operator; got none; pass the operators of a space")
        return self._table

    def refine(self, blocks: Sequence[Block]) -> LatencyTable:
        """Measure the blocks' grids and split them until interpolation holds, or time is over; return the table."""
        scope = _scope(self._structure, [operator for block in blocks for operator in block.chosen()])
        table = self.measure(operator for block in blocks for operator in block.chosen())
        while trials := {block: block.trials() for block in blocks if block.trials()}:
            known = {entry.operator for entry in table.entries}
            if self._is_late() and any(o not in known for found in trials.values() for o in found):
                self._notes.append(unverified_note(len(trials), scope))
                break
            table = self.measure(o for block, found in trials.items() for o in (*block.chosen(), *found))
            entries = {entry.operator: entry for entry in table.entries}
            for block in trials:
                block.split(entries)
            table = self.measure(operator for block in trials for operator in block.chosen())
        return self._finish(scope)

    def add_curves(self, products: Mapping[tuple[str, int], Operator]) -> LatencyTable:
        """Measure the cache curves that the table lacks, as far as there is time, and return the table.

        A curve reaches to the weights of the dense model; one of a smaller model is measured anew. Corrections that
        were fitted without them are left out, so a table that gained no row in this run and has a correction stays as
        it is.

        Args:
            products: A product for each format and number of tokens.
        """
        assert self._table is not None
        largest = working_set_bytes(self._structure, None)
        known = {(c.format, c.tokens) for c in self._table.caches if c.sizes_bytes[-1] >= largest / REACHES}
        wanted = {key: product for key, product in products.items() if key not in known}
        is_done = not self._samples_done and bool(self._table.corrections)
        if not wanted or is_done or self._is_late():
            return self._table
        curves = measure_curves(
            wanted,
            self._device,
            largest_bytes=largest,
            generator=self._generator,
            is_late=self._is_late,
            progress=lambda done, total: self._progress(self._samples_done + done, self._samples_done + total),
        )
        caches = (*(c for c in self._table.caches if (c.format, c.tokens) not in wanted), *curves)
        kept = tuple(c for c in self._table.corrections if keeps_curves(c, self._table.caches, caches))
        self._table = self._table.model_copy(update={"caches": caches, "corrections": kept})
        if self._out is not None:
            self._table.save(self._out)
        return self._table

    def _finish(self, scope: str) -> LatencyTable:
        """Write the notes of the run into the table, save and return it; one of which nothing changed stays as it is.

        Notes of earlier runs stay while they are true: what was left to try is left no more, unless this run says so.
        """
        assert self._table is not None
        earlier = self._earlier_notes
        self._earlier_notes = lasting(earlier, finished=scope)
        if self._samples_done or {*self._earlier_notes, *self._notes} != {*lasting(earlier)}:
            self._keep(self._table.entries)
        return self._table

    def _check_budget(self, wanted: int) -> None:
        """Tell whoever asked, after the first chunk, where the least takes longer than the budget."""
        (first,) = self._taken
        per_sample_s = (time.monotonic() - self._started) / (first.rounds * len(first.times_ms))
        least_s = per_sample_s * min(MIN_ROUNDS, self._budget.rounds) * wanted
        if self._budget.seconds is not None and least_s > self._budget.seconds:
            self._on_overrun(least_s)

    def _repeat_slow_chunks(self) -> None:
        """Measure again what does not compare with the rest; a slow spell may have ended meanwhile."""
        for _ in range(MOST_REPEATS):
            apart = [samples for samples in self._taken if samples.is_apart(self._reference.level_ms)]
            if self._is_late():
                return
            for samples in apart:
                self._taken.remove(samples)
                self._measure_chunk(list(samples.times_ms), left=len(samples.times_ms))

    def _measure_chunk(self, chunk: Sequence[Operator], *, left: int) -> None:
        first, total = self._samples_done, self._samples_done + left * self._budget.rounds
        jobs = {operator: working_set_bytes(self._structure, operator.format) for operator in chunk}
        is_first = not self._reference.times_ms
        samples = sample_rounds(
            jobs,
            self._reference,
            self._device,
            replace(self._budget, seconds=self._seconds(len(chunk) / left)),
            self._generator,
            progress=lambda taken: self._progress(min(first + taken, total), total),
        )
        if is_first:
            self._notes += changed_since(self._table, self._reference)
        self._taken.append(samples)
        if is_first:
            self._check_budget(left)
        self._samples_done += len(chunk) * self._budget.rounds
        entries = {entry.operator: entry for entry in (self._table.entries if self._table else ())}
        entries |= {o: _entry(o, jobs[o], times_ms) for o, times_ms in samples.times_ms.items()}
        self._keep(tuple(entries.values()))
        self._progress(self._samples_done, total)

    def _seconds(self, share: float) -> float | None:
        """Time that a share of what is wanted may take."""
        if self._budget.seconds is None:
            return None
        return max(0.0, self._budget.seconds - (time.monotonic() - self._started)) * share

    def _is_late(self) -> bool:
        return self._budget.seconds is not None and time.monotonic() - self._started > self._budget.seconds

    def _keep(self, entries: Sequence[Entry]) -> None:
        """Make the table of these rows, sorted by operator, and save it; corrections stay that still hold."""
        rows = tuple(sorted(entries, key=lambda entry: str(entry.operator)))
        before = self._table
        self._table = LatencyTable(
            target=self._target,
            fingerprint=self._device.fingerprint(),
            provenance=self._provenance(rows),
            entries=rows,
            corrections=tuple(c for c in before.corrections if still_holds(c, before.entries, rows)) if before else (),
            caches=before.caches if before else (),
            energy=before.energy if before else None,
        )
        if self._out is not None:
            self._table.save(self._out)

    def _provenance(self, rows: Sequence[Entry]) -> Provenance:
        before = self._table.provenance if self._table else None
        notes = (*lasting(self._earlier_notes), *self._found(), *self._notes, *noise_note(rows))
        found: dict[str, object] = {"notes": tuple(dict.fromkeys(notes))}
        if self._taken:
            rounds = min(samples.fewest_rounds for samples in self._taken)
            found["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
            found["clocks"] = self._device.clocks()
            found["cpus"] = cpus_in_use()
            # Of rows that an earlier run measured only their fewest rounds are known, or nothing.
            found["rounds"] = rounds if before is None else before.rounds and min(before.rounds, rounds)
        return (before or Provenance(measured_at=None)).model_copy(update=found)

    def _found(self) -> tuple[str, ...]:
        """Notes on what this run sampled so far."""
        if not self._taken:
            return ()
        about = (self._taken, self._reference)
        return (
            *clock_note(*about),
            *pace_note(*about),
            *cut_note(self._taken, self._budget.rounds),
            *company_note(self._other_work),
        )


def reference_of(operators: Sequence[Operator], base_format: str) -> Operator:
    """Return the operator to time between rounds: of middle size, and the same whenever a space is profiled again.

    Args:
        operators: One or more operators of the space.
        base_format: Format of what is not quantized; its products are preferred.
    """
    products = [o for o in operators if o.kind is OperatorKind.LINEAR and o.format == base_format]
    found = sorted(products or operators, key=lambda o: (math.prod(size for _, size in o.axes), str(o)))
    return found[len(found) // 2]


def _scope(structure: ModelStructure, operators: Sequence[Operator]) -> str:
    """Whose operators they are: the model, and how much passes in a call."""
    sizes = (dict(operator.axes) for operator in operators)
    most = max((axes.get("tokens") or axes["batch"] * axes.get("sequence", 1) for axes in sizes), default=0)
    return f"{model_name(structure)} ({most} tokens a call)"


def _existing(out: Path | None, device: Device, target: str) -> LatencyTable | None:
    if out is None or not out.exists():
        return None
    table = load_table(out)
    differences = [*table.fingerprint.differences(device.fingerprint())]
    if table.target != target:
        differences.append(f"target: {table.target!r} there, {target!r} here")
    if differences:
        raise ForeignTableError(
            f"a table file holds times of one device, runtime and number of threads; {out} differs: "
            f"{'; '.join(differences)}; name another file to write to"
        )
    return table


def _entry(operator: Operator, working_set: int, times_ms: Sequence[float]) -> Entry:
    return Entry.of(
        operator,
        undisturbed_ms(times_ms),
        spread_ms=undisturbed_spread_ms(times_ms),
        repeats=len(times_ms),
        working_set_bytes=working_set,
    )
