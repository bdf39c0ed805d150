"""Times whole models end to end, and fits what the sums of their operators miss."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from evaluators.latency.fitting import MeasuredModel, fit_correction
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import CorrectionBasis, EnergyCoefficients, LatencyTable
from evaluators.latency.workload import Operator, Workload
from search_spaces.space import SearchSpace
from workers.profiling.power import measure_power
from workers.profiling.sampling import are_sure
from workers.profiling.threads import pinned
from workers.targets.device import TimedModel
from workers.targets.energy_meters import EnergyMeter
from workers.targets.undisturbed import undisturbed_ms

MIN_ROUNDS = 3
MOST_TIMES_ROUNDS = 3
AGREEING = 4
"""Rounds that have to agree about a model's undisturbed time."""
ERROR = 0.02
"""How far apart, relative to it, times are that agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeModel:
    """A model that is timed end to end for the correction.

    Attributes:
        name: Its policy, for people.
        operators: Its operators, with how often each runs.
        timed: The model in the runtime's own form.
    """

    name: str
    operators: Counter[Operator]
    timed: TimedModel


def time_models(
    models: Sequence[TimedModel],
    *,
    threads: int,
    rounds: int,
    runs: int,
    seed: int = 0,
    spread_s: float = 0.0,
    late: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Time models in rounds, each in a random order, and return the undisturbed time of each in ms.

    Many rounds of few runs say more than few of many: what disturbs a run mostly disturbs its neighbours too. Models
    about whose undisturbed time few rounds agree get more of them.

    Args:
        models: What to time.
        threads: Threads of the runtime; the models are kept on as many CPUs.
        rounds: Passes over all models, at least; those that are not sure then get up to three times as many.
        runs: Timed runs of a model in a pass.
        seed: Seed of the orders.
        spread_s: Passes go on for so many seconds, as a CPU's pace drifts by some per cent from one quarter of a
            minute to the next; not where there is a limit. There are no pauses: after one, others' data is in the
            caches.
        late: Monotonic time in seconds after which no further pass starts, once there are three; None has no limit.
        progress: Called after every sample.
    """
    generator = random.Random(seed)
    rounds_ms: list[list[Sequence[float]]] = [[] for _ in models]
    done, start = 0, time.monotonic()
    with pinned(threads):
        for number in count():
            is_whole = number < rounds or (late is None and time.monotonic() < start + spread_s)
            wanted = [
                index
                for index, found in enumerate(rounds_ms)
                if is_whole
                or (number < MOST_TIMES_ROUNDS * rounds and not are_sure(found, agreeing=AGREEING, error=ERROR))
            ]
            if not wanted or (late is not None and number >= MIN_ROUNDS and time.monotonic() > late):
                break
            for index in generator.sample(wanted, len(wanted)):
                rounds_ms[index].append(models[index].sample(runs=runs))
                done += 1
                if progress is not None:
                    progress(done, _expected(done, rounds * len(models), time.monotonic() - start, spread_s, late))
    return [undisturbed_ms([x for times_ms in found for x in times_ms]) for found in rounds_ms]


def _expected(done: int, least: int, elapsed_s: float, spread_s: float, late: float | None) -> int:
    """Samples in all, as far as it is known: passes go on for a time that is known where nothing limits it."""
    if late is not None or elapsed_s <= 0:
        return max(least, done)
    return max(least, done, round(done * spread_s / elapsed_s))


def measure_correction(
    table: LatencyTable,
    workload: Workload,
    models: Iterable[WholeModel],
    *,
    space: SearchSpace | None = None,
    wanted: int | None = None,
    rounds: int = 24,
    runs: int = 5,
    seed: int = 0,
    spread_s: float = 0.0,
    late: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    meter: EnergyMeter | None = None,
) -> LatencyTable:
    """Time whole models end to end and fit what the sums of their operators miss.

    Args:
        table: Table that answers for their operators.
        workload: What the models are fed with.
        models: Two or more models of different cost; the more, the more coefficients can be fitted.
        space: Where their policies are from. The table then says what the correction was fitted on; None leaves that
            open, and the correction is taken for any model.
        wanted: Models that were to be measured; None where these are all.
        rounds: Passes over all models, each in a random order and with fresh sessions.
        runs: Timed runs of a model in a round.
        seed: Seed of the orders.
        spread_s: Seconds that the passes are spread over; see `time_models`.
        late: Monotonic time in seconds after which no more is measured than it takes; None has no limit.
        progress: Called after every sample.
        meter: Counter of the device's energy. The power that the models take is then measured too, and stands in the
            table unless that states coefficients; None leaves what the table says of energy.

    Returns:
        The table with the correction of that workload; `fit` in it holds the error on left-out models.
    """
    models = list(models)
    measured_ms = time_models(
        [model.timed for model in models],
        threads=table.fingerprint.threads,
        rounds=rounds,
        runs=runs,
        seed=seed,
        spread_s=spread_s,
        late=late,
        progress=progress,
    )
    predictor = LatencyPredictor(table, workload)
    measured = [
        MeasuredModel(
            name=model.name,
            work=predictor.work_by_operator(model.operators),
            measured_ms=time_ms,
        )
        for model, time_ms in zip(models, measured_ms, strict=True)
    ]
    basis = None if space is None else _basis(space, measured, table, workload, wanted or len(models))
    table = table.with_correction(workload, fit_correction(measured), basis)
    is_late = late is not None and time.monotonic() > late
    if meter is None or is_late or isinstance(table.energy, EnergyCoefficients):
        return table
    timed = [model.timed for model in models]
    power = measure_power(measured, timed, meter, threads=table.fingerprint.threads, seed=seed, progress=progress)
    return table if power is None else table.model_copy(update={"energy": power})


def _basis(
    space: SearchSpace, measured: Sequence[MeasuredModel], table: LatencyTable, workload: Workload, wanted: int
) -> CorrectionBasis:
    rows = LatencyPredictor(table.model_copy(update={"caches": ()}), workload)
    times_ms = {operator: rows.operator_ms(operator) for model in measured for operator, _, _ in model.work}
    return CorrectionBasis.of(space, times_ms, wanted=wanted)
