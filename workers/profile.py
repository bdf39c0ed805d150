"""Measures a latency table: the operators that a space needs, and a correction on whole models."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.latency.correction import fit_correction
from evaluators.latency.table import Entry, ForeignTableError, LatencyTable, Provenance, load_table
from evaluators.latency.workload import Operator, Workload, fixed_operators, layer_operators, unit_operators
from search_spaces.channels import ChannelUnit, reachable_cuts
from search_spaces.formats import FORMATS, LayerType
from search_spaces.policy import Choice
from search_spaces.space import SearchSpace
from search_spaces.units import ModelStructure, Unit
from workers.targets import onnxruntime_cpu
from workers.targets.device import DEVICES, Device

if TYPE_CHECKING:
    import numpy.typing as npt

CHUNK = 256
"""Operators that are measured together, in rounds, before the table is saved."""
MAX_CHANNEL_STEPS = 4
"""Widths of channels in a grid."""
NOISY_SPREAD = 0.25
"""Interquartile range over median from which one operator counts as noisy."""
NOISY_SHARE = 0.2
"""Share of noisy operators from which the machine counts as noisy."""

Progress = Callable[[int, int], None]
"""Called with samples taken and samples in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileBudget:
    """How much is measured.

    Attributes:
        rounds: Passes over all operators, each in a random order, so that a drift of the clock hits all alike.
        runs: Timed runs of an operator in a round.
        seconds: Time after which no further round starts, once every operator has had two; None has no limit.
    """

    rounds: int = 5
    runs: int = 15
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeModel:
    """A model that is timed end to end for the correction.

    Attributes:
        predicted_ms: Plain sum of its operators' times (`LatencyPredictor.raw_ms`).
        model: Serialised ONNX model or its path.
        feeds: Inputs of the workload's shape, by name.
    """

    predicted_ms: float
    model: bytes | Path
    feeds: Mapping[str, "npt.NDArray[Any]"]


def required_operators(space: SearchSpace, workload: Workload) -> tuple[Operator, ...]:
    """Return every operator that a policy of the space can reach, the dense one's included, without repeats."""
    found = set(fixed_operators(space.structure, workload))
    choices = {
        unit.name: tuple(dict.fromkeys((*space.choices(unit.name), Choice(unit.groups, space.base_format))))
        for unit in space.structure.units
    }
    for unit in space.structure.units:
        found.update(_reachable(unit, choices, space.base_format, workload))
    return tuple(sorted(found, key=str))


def _reachable(
    unit: Unit, choices: Mapping[str, Sequence[Choice]], base_format: str, workload: Workload
) -> Iterator[Operator]:
    """Operators of one unit under all its choices, and under those of the units that it shares layers with."""
    for choice in choices[unit.name]:
        yield from unit_operators(unit, choice, workload)
    for layer in unit.channel_layers if isinstance(unit, ChannelUnit) else ():
        for cut in reachable_cuts(layer, choices, base_format):
            yield from layer_operators(cut, workload)


def grid_operators(
    structure: ModelStructure, workload: Workload, *, formats: Iterable[str], channel_multiple: int, steps: int = 8
) -> tuple[Operator, ...]:
    """Return the operators of a model on a grid of widths, for a table that serves spaces not yet declared.

    Args:
        structure: Units and fixed parts.
        workload: Batch and tokens.
        formats: Formats that have a kernel on the target.
        channel_multiple: Widths on the target are multiples of this.
        steps: Widths of a unit: its groups in so many equal steps, and the fewest groups that a policy can keep, so
            that every width lies within the grid.
    """
    found = set(fixed_operators(structure, workload))
    choices: dict[str, list[Choice]] = {}
    for unit in structure.units:
        # A layer between channels has a grid of two axes: fewer steps along each keep it affordable.
        count = min(steps, MAX_CHANNEL_STEPS) if isinstance(unit, ChannelUnit) else steps
        ratios = (1e-9, *(step / count for step in range(1, count + 1)))
        keeps = unit.counts(ratios, channel_multiple=channel_multiple)
        names = [n for n in {structure.base_format, *formats} if unit.layer_type in FORMATS.get(n).layer_types]
        choices[unit.name] = [Choice(keep, name) for name in names for keep in keeps]
    for unit in structure.units:
        found.update(_reachable(unit, choices, structure.base_format, workload))
    return tuple(sorted(found, key=str))


def working_set_bytes(structure: ModelStructure, format_name: str | None) -> int:
    """Bytes of all units' weights in one format (None: the base format): what passes through the caches in a call."""
    number_format = FORMATS.get(format_name or structure.base_format)
    return sum(
        number_format.weight_bytes(out_features, in_features)
        for unit in structure.units
        if unit.layer_type is not LayerType.EMBEDDING
        for _, out_features, in_features in unit.layer_shapes(unit.groups)
    )


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
) -> LatencyTable:
    """Measure operators on a target of this machine.

    Args:
        operators: What to measure.
        structure: Model that they belong to; its size decides from which cache weights come.
        target: Name of a target.
        threads: Threads of the runtime.
        out: Table file. What it already holds is not measured again, and it is saved while the work goes on.
        budget: How much is measured.
        seed: Seed of weights, inputs and orders.
        progress: Called after every sample.

    Returns:
        The table with all that `out` held and all operators.

    Raises:
        ForeignTableError: `out` holds a table of another target, device, runtime or number of threads.
        TableError: `out` is not a valid table.
    """
    return measure(
        operators,
        structure,
        DEVICES.get(target)(threads),
        target=target,
        out=out,
        budget=budget or ProfileBudget(),
        generator=random.Random(seed),
        progress=progress or (lambda done, total: None),
    )


def measure(
    operators: Iterable[Operator],
    structure: ModelStructure,
    device: Device,
    *,
    target: str,
    out: Path | None,
    budget: ProfileBudget,
    generator: random.Random,
    progress: Progress,
) -> LatencyTable:
    """Measure operators on a device; see `profile`."""
    table = _existing(out, device, target)
    known = {entry.operator for entry in table.entries} if table else set()
    wanted = [operator for operator in dict.fromkeys(operators) if operator not in known]
    # Chunks are mixed so that each is alike in cost, and a drift of the clock tilts none of the widths.
    generator.shuffle(wanted)
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        seconds = None if budget.seconds is None else budget.seconds * len(chunk) / len(wanted)
        first, total = start * budget.rounds, len(wanted) * budget.rounds
        jobs = {operator: working_set_bytes(structure, operator.format) for operator in chunk}
        samples = _rounds(jobs, device, budget, seconds, generator, partial(_report, progress, first, total))
        added = [_entry(operator, jobs[operator], times_ms) for operator, times_ms in samples.items()]
        table = _extended(table, added, device, target, budget.rounds)
        progress(first + len(chunk) * budget.rounds, total)
        if out is not None:
            table.save(out)
    if table is None:
        raise ValueError("a latency table has at least one operator; got none; pass the operators of a space")
    return table


def _report(progress: Progress, first: int, total: int, taken: int) -> None:
    progress(first + taken, total)


def _extended(
    table: LatencyTable | None, added: Sequence[Entry], device: Device, target: str, rounds: int
) -> LatencyTable:
    """The table with more rows, sorted by operator."""
    entries = (*(table.entries if table else ()), *added)
    notes = (*(table.provenance.notes if table else ()), *_noise(added))
    return LatencyTable(
        target=target,
        fingerprint=device.fingerprint(),
        provenance=Provenance(
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            rounds=rounds,
            clocks=device.clocks(),
            notes=tuple(dict.fromkeys(notes)),
        ),
        entries=tuple(sorted(entries, key=lambda entry: str(entry.operator))),
        corrections=table.corrections if table else (),
    )


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


def _rounds(
    operators: Mapping[Operator, int],
    device: Device,
    budget: ProfileBudget,
    seconds: float | None,
    generator: random.Random,
    progress: Callable[[int], None],
) -> dict[Operator, list[float]]:
    """Sample operators with their working sets in rounds of random order; returns milliseconds by operator."""
    samples: dict[Operator, list[float]] = {operator: [] for operator in operators}
    start, taken = time.monotonic(), 0
    for number in range(budget.rounds):
        if number >= 2 and seconds is not None and time.monotonic() - start > seconds:
            break
        for operator in generator.sample(list(operators), len(operators)):
            samples[operator].extend(
                device.sample(
                    operator,
                    runs=budget.runs,
                    seed=generator.getrandbits(32),
                    working_set_bytes=operators[operator],
                )
            )
            taken += 1
            progress(taken)
    return samples


def _entry(operator: Operator, working_set: int, times_ms: Sequence[float]) -> Entry:
    low, median, high = (float(x) for x in np.percentile(times_ms, [25, 50, 75]))
    return Entry(
        kind=operator.kind,
        format=operator.format,
        function=operator.function,
        axes=dict(operator.axes),
        median_ms=median,
        spread_ms=high - low,
        repeats=len(times_ms),
        working_set_bytes=working_set,
    )


def _noise(entries: Sequence[Entry]) -> tuple[str, ...]:
    """A note where many operators spread widely."""
    noisy = [entry for entry in entries if entry.spread_ms > NOISY_SPREAD * entry.median_ms]
    if len(noisy) <= NOISY_SHARE * len(entries):
        return ()
    return (
        f"the machine is noisy: {len(noisy)} of {len(entries)} operators spread by more than {NOISY_SPREAD:.0%} of "
        "their median; end other work and profile again into a new file",
    )


def measure_correction(
    table: LatencyTable,
    workload: Workload,
    models: Iterable[WholeModel],
    *,
    rounds: int = 3,
    repeats: int = 30,
    seed: int = 0,
    progress: Progress | None = None,
) -> LatencyTable:
    """Time whole models end to end and fit what the sums of their operators miss.

    Args:
        table: Table that the sums were made with.
        workload: What the models were fed with.
        models: Two or more models of different cost; four or more let an overhead be fitted.
        rounds: Passes over all models, each in a random order and with fresh sessions.
        repeats: Timed runs of a model in a round.
        seed: Seed of the orders.
        progress: Called after every sample.

    Returns:
        The table with the correction of that workload; `fit` in it holds the error on left-out models.
    """
    models = list(models)
    generator = random.Random(seed)
    samples: list[list[float]] = [[] for _ in models]
    threads = table.fingerprint.threads
    for number in range(rounds):
        for place, index in enumerate(generator.sample(range(len(models)), len(models))):
            session = onnxruntime_cpu.open_session(models[index].model, threads=threads)
            samples[index].extend(onnxruntime_cpu.time_runs(session, models[index].feeds, runs=repeats))
            if progress is not None:
                progress(number * len(models) + place + 1, rounds * len(models))
    measured_ms = [float(np.median(times_ms)) for times_ms in samples]
    return table.with_correction(workload, fit_correction([m.predicted_ms for m in models], measured_ms))
