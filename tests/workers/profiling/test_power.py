from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from evaluators.latency.fitting import MeasuredModel
from evaluators.latency.table import Entry, Fingerprint, LatencyTable, MeasuredPower, Provenance
from evaluators.latency.table.energy import HOROWITZ, Arithmetic
from evaluators.latency.workload import Operator, OperatorKind, Workload
from workers.profiling import power as power_module
from workers.profiling.power import measure_power, power_of_shares
from workers.profiling.whole import WholeModel, measure_correction

WORKLOAD = Workload(batch=1, sequence_length=4)
FLOAT, INT8 = (
    Operator.of(OperatorKind.LINEAR, format=name, tokens=4, in_features=8, out_features=8) for name in ("fp32", "w8a8")
)
WATTS = {"fp32": 20.0, "w8a8": 10.0}


class Clock:
    """Seconds and joules that pass as models run."""

    def __init__(self) -> None:
        self.now_s, self.energy_j, self.source = 0.0, 0.0, "a meter"

    def joules(self) -> float:
        return self.energy_j

    def monotonic(self) -> float:
        return self.now_s


class Model:
    """A model that takes a time and a power for each operator."""

    def __init__(self, clock: Clock, times_ms: dict[str, float]) -> None:
        self.clock, self.times_ms = clock, times_ms

    def sample(self, *, runs: int) -> Sequence[float]:
        for name, time_ms in self.times_ms.items():
            self.clock.now_s += runs * time_ms / 1e3
            self.clock.energy_j += runs * time_ms / 1e3 * WATTS[name]
        return [sum(self.times_ms.values())] * runs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(power_module.time, "monotonic", clock.monotonic)
    return clock


def whole(clock: Clock, *shares: tuple[float, float]) -> tuple[list[MeasuredModel], list[Model]]:
    models = [
        MeasuredModel(name=str(n), work=((FLOAT, 1, float_ms), (INT8, 1, int8_ms)), measured_ms=float_ms + int8_ms)
        for n, (float_ms, int8_ms) in enumerate(shares)
    ]
    return models, [Model(clock, {"fp32": float_ms, "w8a8": int8_ms}) for float_ms, int8_ms in shares]


def test_power_is_told_apart_by_arithmetic(clock: Clock) -> None:
    models, timed = whole(clock, (4.0, 0.1), (0.2, 2.0), (2.0, 1.0), (1.0, 3.0))
    power = measure_power(models, timed, clock, threads=10**6)
    assert power is not None
    assert power.source == "a meter"
    assert power.watts[Arithmetic.FLOAT32] == pytest.approx(20, rel=0.03)
    assert power.watts[Arithmetic.INT8] == pytest.approx(10, rel=0.03)


def test_models_run_long_enough_for_a_counter(clock: Clock) -> None:
    models, timed = whole(clock, (0.004, 0.001))
    measure_power(models, timed, clock, threads=10**6)
    assert clock.now_s == pytest.approx(power_module.ROUNDS * power_module.MOST_RUNS * 0.005e-3)
    before_s = clock.now_s
    measure_power(*whole(clock, (400.0, 100.0)), clock, threads=10**6)
    assert clock.now_s - before_s == pytest.approx(power_module.ROUNDS * power_module.SECONDS)


def test_a_counter_that_stands_still_gives_no_power(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "joules", lambda: 0.0)
    assert measure_power(*whole(clock, (1.0, 1.0)), clock, threads=10**6) is None


def test_what_no_model_tells_apart_stays_near_the_mean_and_above_zero() -> None:
    alike = power_of_shares(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([10.0, 12.0]))
    assert alike == pytest.approx([11, 11], rel=0.02)
    noisy = power_of_shares(np.array([[1.0, 0.0], [0.9, 0.1]]), np.array([10.0, 5.0]))
    assert noisy.min() >= 2.5


def test_the_table_keeps_measured_power_and_coefficients_that_it_states(clock: Clock) -> None:
    row = {"spread_ms": 0.0, "repeats": 1, "working_set_bytes": 0}
    table = LatencyTable(
        target="t",
        fingerprint=Fingerprint(device="d", runtime="r", runtime_version="1", threads=10**6, os="o"),
        provenance=Provenance(measured_at=None),
        entries=tuple(
            Entry(kind=o.kind, format=o.format, axes=dict(o.axes), median_ms=1.0, **row) for o in (FLOAT, INT8)
        ),
    )
    models = [
        WholeModel(name=str(n), operators=Counter({FLOAT: n, INT8: 5 - n}), timed=model)
        for n, model in enumerate(whole(clock, *[(n, 5.0 - n) for n in range(1, 5)])[1], 1)
    ]
    measured = measure_correction(table, WORKLOAD, models, rounds=1, runs=1, meter=clock)
    assert isinstance(measured.energy, MeasuredPower)
    assert measured.energy.watts[Arithmetic.FLOAT32] == pytest.approx(20, rel=0.05)
    stated = table.model_copy(update={"energy": HOROWITZ})
    assert measure_correction(stated, WORKLOAD, models, rounds=1, runs=1, meter=clock).energy == HOROWITZ
    assert measure_correction(measured, WORKLOAD, models, rounds=1, runs=1).energy == measured.energy
