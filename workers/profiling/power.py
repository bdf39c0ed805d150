"""Power of whole models while they run, and what of it belongs to each arithmetic: energy as a device's meter tells it.

Shape letters: M models, A arithmetics.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from evaluators.energy import work_of
from evaluators.latency.fitting import MeasuredModel
from evaluators.latency.table.energy import Arithmetic, MeasuredPower
from workers.profiling.threads import pinned
from workers.targets.device import TimedModel
from workers.targets.energy_meters import EnergyMeter

ROUNDS = 2
SECONDS = 1.5
"""Time that a model runs in a round, about: counters move every millisecond (RAPL) to 0.1 s (NVML)."""
MOST_RUNS = 100_000
RIDGE = 1e-2
"""Weight of the pull towards one power for all, against a squared relative error of a model."""
WITHIN = 2.0
"""No arithmetic takes more than so many times the highest power of a model, nor less than that part of the lowest."""

Floats = npt.NDArray[np.float64]


def measure_power(
    models: Sequence[MeasuredModel],
    timed: Sequence[TimedModel],
    meter: EnergyMeter,
    *,
    threads: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> MeasuredPower | None:
    """Run models for a while, read the meter before and behind, and return the power by arithmetic.

    What the device takes when idle, and what other programs take meanwhile, is part of it.

    Args:
        models: Whole models with their operators and times, one or more.
        timed: The same models, to run.
        meter: Counter of the device.
        threads: Threads of the runtime; the models are kept on as many CPUs.
        seed: Seed of the orders.
        progress: Called after every model of a round, with those done and all.

    Returns:
        The power; None where the counter stands still, as in some virtual machines.

    Raises:
        OSError: The meter can't be read any more.
    """
    generator = random.Random(seed)
    watts: list[list[float]] = [[] for _ in models]
    with pinned(threads):
        for number in range(ROUNDS):
            for place, index in enumerate(generator.sample(range(len(models)), len(models))):
                runs = min(MOST_RUNS, max(1, round(1e3 * SECONDS / models[index].measured_ms)))
                watts[index].append(_watts(timed[index], meter, runs=runs))
                if progress is not None:
                    progress(number * len(models) + place + 1, ROUNDS * len(models))
    watts_M = np.array([median(found) for found in watts])
    if not (watts_M > 0).all():
        return None
    kinds = (Arithmetic.FLOAT32, *sorted({kind for model in models for kind in _times(model)} - {Arithmetic.FLOAT32}))
    share_MA = np.array([[_times(model).get(kind, 0.0) for kind in kinds] for model in models])
    found_A = power_of_shares(share_MA / share_MA.sum(axis=1, keepdims=True), watts_M)
    return MeasuredPower(source=meter.source, watts=dict(zip(kinds, found_A.tolist(), strict=True)))


def power_of_shares(share_MA: Floats, watts_M: Floats) -> Floats:
    """Return the power (A,) of each arithmetic in watts that explains the models' best, by squared relative errors.

    Args:
        share_MA: Share of each model's time that each arithmetic takes, rows summing to 1, (M, A).
        watts_M: Mean power of each model, above 0, (M,).
    """
    from scipy.optimize import lsq_linear

    mean = float(watts_M.mean())
    arithmetics = share_MA.shape[1]
    pull = np.sqrt(RIDGE * len(watts_M)) / mean
    rows = np.vstack([share_MA / watts_M[:, None], pull * np.eye(arithmetics)])
    wanted = np.concatenate([np.ones(len(watts_M)), np.full(arithmetics, pull * mean)])
    bounds = (float(watts_M.min()) / WITHIN, float(watts_M.max()) * WITHIN)
    found_A: Floats = lsq_linear(rows, wanted, bounds=bounds).x
    return found_A


def _watts(model: TimedModel, meter: EnergyMeter, *, runs: int) -> float:
    """Mean power while a model runs, which includes opening it."""
    before_j, start = meter.joules(), time.monotonic()
    model.sample(runs=runs)
    return (meter.joules() - before_j) / max(time.monotonic() - start, 1e-9)


def _times(model: MeasuredModel) -> dict[Arithmetic, float]:
    """Milliseconds of a model by what its operators multiply."""
    found: dict[Arithmetic, float] = {}
    for operator, count, raw_ms in model.work:
        kind = work_of(operator).arithmetic
        found[kind] = found.get(kind, 0.0) + count * raw_ms
    return found
