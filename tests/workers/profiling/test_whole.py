import os
from collections import Counter

import pytest

from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance
from evaluators.latency.workload import Operator, OperatorKind, Workload
from workers.profiling import whole
from workers.profiling.threads import pinned
from workers.profiling.whole import WholeModel, measure_correction, time_models

WORKLOAD = Workload(batch=1, sequence_length=4)
NORM = Operator.of(OperatorKind.LAYER_NORM, tokens=4, features=8)
LINEAR = Operator.of(OperatorKind.LINEAR, format="fp32", tokens=4, in_features=8, out_features=8)


class Scripted:
    """A model whose samples are given."""

    def __init__(self, log: list["Scripted"], *samples_ms: float) -> None:
        self.log, self.samples_ms, self.taken = log, samples_ms, 0

    def sample(self, *, runs: int) -> list[float]:
        self.log.append(self)
        self.taken += 1
        return [self.samples_ms[(self.taken - 1) % len(self.samples_ms)]] * runs


def table() -> LatencyTable:
    rows = [
        Entry(
            kind=o.kind,
            format=o.format,
            axes=dict(o.axes),
            median_ms=ms,
            spread_ms=0.0,
            repeats=1,
            working_set_bytes=0,
        )
        for o, ms in ((NORM, 1.0), (LINEAR, 2.0))
    ]
    mark = Fingerprint(device="d", runtime="r", runtime_version="1", threads=1, os="o")
    return LatencyTable(target="t", fingerprint=mark, provenance=Provenance(measured_at=None), entries=tuple(rows))


def test_models_are_timed_in_rounds_of_random_order_undisturbed() -> None:
    log: list[Scripted] = []
    models = [Scripted(log, 1.0, 9.0, 2.0), Scripted(log, 4.0)]
    assert time_models(models, threads=1, rounds=9, runs=2, seed=3) == [1.0, 4.0]
    rounds = [log[start : start + 2] for start in range(0, 18, 2)]
    assert all(set(r) == set(models) for r in rounds)
    assert len({tuple(map(id, r)) for r in rounds}) == 2


@pytest.mark.parametrize(("spread_s", "rounds"), [(0.0, 9), (5.0, 9), (18.0, 18)])
def test_rounds_go_on_for_a_time(monkeypatch: pytest.MonkeyPatch, spread_s: float, rounds: int) -> None:
    now = [100.0]
    monkeypatch.setattr(whole.time, "monotonic", lambda: now[0])

    told: list[tuple[int, int]] = []

    def a_second_goes_by(done: int, total: int) -> None:
        told.append((done, total))
        now[0] += 1.0

    model = Scripted([], 1.0)
    time_models([model], threads=1, rounds=9, runs=2, spread_s=spread_s, progress=a_second_goes_by)
    assert model.taken == rounds
    # From the second sample on it is known how long one takes, and so how many there will be.
    assert all(rounds <= total <= 2 * rounds for _, total in told[1:])
    assert told[-1][1] <= rounds + 1


def test_models_that_are_hardly_ever_undisturbed_are_timed_oftener() -> None:
    log: list[Scripted] = []
    restless = Scripted(log, *(9.0 - 0.3 * number for number in range(27)))
    models = [Scripted(log, 4.0), restless]
    found: list[tuple[int, int]] = []
    time_models(models, threads=1, rounds=9, runs=2, progress=lambda done, total: found.append((done, total)))
    assert models[0].taken == 9
    assert restless.taken == 27
    assert found[0] == (1, 18)
    assert found[-1] == (36, 36)


def test_when_time_is_over_models_are_timed_three_times() -> None:
    log: list[Scripted] = []
    models = [Scripted(log, 1.0), Scripted(log, 4.0)]
    assert time_models(models, threads=1, rounds=9, runs=2, late=0.0) == [1.0, 4.0]
    assert [model.taken for model in models] == [3, 3]


def test_a_correction_is_fitted_on_sums_without_the_one_before() -> None:
    log: list[Scripted] = []
    works = [Counter({NORM: n, LINEAR: m}) for n, m in ((1, 8), (2, 4), (3, 2), (4, 1))]
    models = [
        WholeModel(name=f"model {n}", operators=work, timed=Scripted(log, 1.5 * (work[NORM] + 2 * work[LINEAR])))
        for n, work in enumerate(works)
    ]
    first = measure_correction(table(), WORKLOAD, models, rounds=2, runs=3)
    second = measure_correction(first, WORKLOAD, models, rounds=2, runs=3).correction(WORKLOAD)
    assert first.correction(WORKLOAD) == second
    assert second is not None
    assert (second.scale, second.overhead_ms, second.models) == (pytest.approx(1.5), 0, 4)
    assert [entry.name for entry in second.report] == ["model 0", "model 1", "model 2", "model 3"]
    assert table().corrections == ()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not pin")
def test_the_thread_is_pinned_and_let_go_again() -> None:
    before = os.sched_getaffinity(0)

    def fail() -> None:
        with pinned(1):
            assert len(os.sched_getaffinity(0)) == 1
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert os.sched_getaffinity(0) == before
    with pinned(len(before) + 1):
        assert os.sched_getaffinity(0) == before
