import random
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import (
    CacheCurve,
    CorrectionBasis,
    ForeignTableError,
    LatencyTable,
    MeasuredPower,
    load_table,
)
from evaluators.latency.table.energy import Arithmetic
from evaluators.latency.workload import Operator, OperatorKind, Workload
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import ModelStructure
from workers.profile import profile
from workers.profiling import session as session_module
from workers.profiling.refinement import blocks_of
from workers.profiling.required import required_operators, working_set_bytes
from workers.profiling.sampling import ProfileBudget
from workers.profiling.session import ProfileSession, reference_of
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu

WORKLOAD = Workload(batch=1, sequence_length=17)


def operators_of(structure: ModelStructure, *keep: float) -> list[Operator]:
    space = build_space(
        structure,
        SpaceConfig(keep=keep or (1.0, 0.5, 0.0)),
        target_formats=("fp32", "w8a8", "w4"),
        channel_multiple=8,
    )
    return list(required_operators(space, WORKLOAD))


def open_session(device, structure: ModelStructure, out: Path | None = None, **budget: float) -> ProfileSession:
    return ProfileSession(
        device,
        structure,
        reference=reference_of(operators_of(structure), "fp32"),
        target="t",
        out=out,
        budget=ProfileBudget(**{"rounds": 3, "runs": 4, **budget}),
        generator=random.Random(0),
        progress=lambda done, total: None,
    )


def refine(device, structure: ModelStructure, wanted: list[Operator], out: Path | None = None, **budget: float):
    return open_session(device, structure, out, **budget).refine(blocks_of(wanted))


def test_rows_hold_medians_spreads_repeats_and_working_sets(structure, steady_device) -> None:
    device, wanted = steady_device(), operators_of(structure)
    table = refine(device, structure, wanted)
    assert {e.operator for e in table.entries} == set(wanted)
    assert all((e.median_ms, e.spread_ms, e.repeats) == (sum(e.axes.values()), 0, 12) for e in table.entries)
    assert all(e.working_set_bytes == working_set_bytes(structure, e.format) for e in table.entries)
    assert all(size == working_set_bytes(structure, o.format) for o, size in device.calls)
    assert table.provenance.clocks == "1 GHz"
    assert table.provenance.notes == ()


def test_what_the_file_holds_is_not_measured_again(structure, steady_device, tmp_path: Path) -> None:
    wanted = operators_of(structure)
    first, second, third = steady_device(), steady_device(), steady_device()
    open_session(first, structure, tmp_path / "t.json").measure(wanted[:5])
    refine(second, structure, wanted, tmp_path / "t.json")
    assert set(wanted[5:]) <= set(second.sampled) <= {*wanted[5:], reference_of(wanted, "fp32")}
    written = (tmp_path / "t.json").read_bytes()
    whole = refine(third, structure, wanted, tmp_path / "t.json")
    assert third.calls == []
    assert (tmp_path / "t.json").read_bytes() == written
    assert load_table(tmp_path / "t.json") == whole
    assert {e.operator for e in whole.entries} == set(wanted)


def test_an_interrupted_profile_keeps_what_was_finished(
    structure, steady_device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "CHUNK", 4)
    wanted = operators_of(structure)

    class Interrupted(steady_device):
        def sample(self, operator: Operator, **options: int) -> list[float]:
            if len(self.calls) == 40:
                raise KeyboardInterrupt
            return super().sample(operator, **options)

    with pytest.raises(KeyboardInterrupt):
        refine(Interrupted(), structure, wanted, tmp_path / "t.json")
    kept = {e.operator for e in load_table(tmp_path / "t.json").entries}
    assert len(kept) == 8
    device = steady_device()
    assert {e.operator for e in refine(device, structure, wanted, tmp_path / "t.json").entries} == set(wanted)
    assert not kept & set(device.sampled) - {reference_of(wanted, "fp32")}


def test_a_large_space_needs_few_measurements_and_all_its_times_are_known(structure, steady_device) -> None:
    wanted = operators_of(structure, *(n / 64 for n in range(1, 65)))

    def cost(operator: Operator) -> float:
        sizes = [size for _, size in operator.axes]
        return 0.01 + 1e-5 * sizes[0] * sizes[-1]

    table = refine(steady_device(cost), structure, wanted)
    assert len(table.entries) < len(wanted) / 2
    predictor = LatencyPredictor(table, WORKLOAD)
    errors = sorted(abs(predictor.operator_ms(o) / cost(o) - 1) for o in wanted)
    assert errors[-1] < 0.05


def test_a_refined_file_needs_nothing_more(structure, steady_device, tmp_path: Path) -> None:
    wanted = operators_of(structure, *(n / 64 for n in range(1, 65)))
    refine(steady_device(), structure, wanted, tmp_path / "t.json")
    again = steady_device()
    refine(again, structure, wanted, tmp_path / "t.json")
    assert again.calls == []


def test_when_time_is_over_the_coarse_grid_is_known_and_a_note_says_so(structure, steady_device, tmp_path) -> None:
    wanted = operators_of(structure, *(n / 64 for n in range(1, 65)))
    table = refine(steady_device(), structure, wanted, tmp_path / "t.json", seconds=0.0)
    LatencyPredictor(table, WORKLOAD).check(wanted)
    note, cut = sorted(table.provenance.notes)
    assert "before interpolation between widths was tried everywhere" in note
    assert (
        f"time was over before {len(table.entries)} of {len(table.entries)} operators were sampled in 3 rounds" in cut
    )
    assert table.provenance.rounds == 2
    assert len(refine(steady_device(), structure, wanted, tmp_path / "t.json").entries) > len(table.entries)


def test_a_note_goes_once_it_is_no_longer_true(structure, steady_device, tmp_path: Path) -> None:
    path, wanted = tmp_path / "t.json", operators_of(structure, *(n / 64 for n in range(1, 65)))

    def cost(operator: Operator) -> float:
        return 1.0 + 0.001 * operator.axes[0][1]

    hasty = refine(steady_device(cost), structure, wanted, path, seconds=0.0)
    old = "the machine is noisy: 1 of 2 operators spread by more than 25% of their time"
    kept = "joined from tables a and b"
    notes = (old, kept, *hasty.provenance.notes)
    hasty.model_copy(update={"provenance": hasty.provenance.model_copy(update={"notes": notes})}).save(path)
    whole = refine(steady_device(cost), structure, wanted, path)
    found, cut = whole.provenance.notes
    assert found == kept
    assert "operators were sampled in 3 rounds" in cut
    assert whole.provenance.rounds == 2
    written = path.read_bytes()
    again = steady_device(cost)
    refine(again, structure, wanted, path)
    assert (again.calls, path.read_bytes()) == ([], written)


def test_what_another_model_left_to_try_stays_noted(structure, steady_device, tmp_path: Path) -> None:
    path, wanted = tmp_path / "t.json", operators_of(structure, *(n / 64 for n in range(1, 65)))
    left = refine(steady_device(), structure, wanted, path, seconds=0.0).provenance.notes
    other = replace(structure, architecture="other")
    norm = Operator.of(OperatorKind.LAYER_NORM, tokens=17, features=8)
    assert set(left) <= set(refine(steady_device(), other, [norm], path).provenance.notes)


def test_a_run_that_has_nothing_to_measure_takes_back_what_was_left_to_try(
    structure, steady_device, tmp_path: Path
) -> None:
    path, wanted = tmp_path / "t.json", operators_of(structure)
    table = refine(steady_device(), structure, wanted, path)
    stale = (
        "the time for profiling was over before interpolation between widths was tried everywhere: 3 groups of "
        "operators are left; run the command again to go on"
    )
    table.model_copy(update={"provenance": table.provenance.model_copy(update={"notes": (stale,)})}).save(path)
    device = steady_device()
    found = refine(device, structure, wanted, path)
    assert (device.calls, found) == ([], table)
    assert load_table(path) == table


def test_rounds_are_those_that_every_row_has(structure, steady_device, tmp_path: Path) -> None:
    wanted = operators_of(structure)
    open_session(steady_device(), structure, tmp_path / "t.json", rounds=3).measure(wanted[:5])
    assert (
        open_session(steady_device(), structure, tmp_path / "t.json", rounds=5).measure(wanted).provenance.rounds == 3
    )
    assert open_session(steady_device(), structure, rounds=5).measure(wanted).provenance.rounds == 5


def test_a_time_that_is_too_short_for_two_rounds_is_told_after_the_first_chunk(
    structure, steady_device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "CHUNK", 4)
    wanted, now, told = operators_of(structure), [0.0], []
    monkeypatch.setattr(session_module.time, "monotonic", lambda: now[0])

    class Slow(steady_device):
        def sample(self, operator: Operator, **options: int) -> list[float]:
            now[0] += 10
            return super().sample(operator, **options)

    def run(seconds: float | None) -> list[float]:
        device = Slow()
        session = ProfileSession(
            device,
            structure,
            reference=reference_of(wanted, "fp32"),
            target="t",
            out=None,
            budget=ProfileBudget(rounds=2, runs=4, seconds=seconds),
            generator=random.Random(0),
            progress=lambda done, total: None,
            on_overrun=lambda seconds: told.append((len(device.calls), seconds)),
        )
        session.measure(wanted)
        return [told.pop()] if told else []

    # Two rounds of 4 operators, with the reference before, between and behind.
    ((calls, least_s),) = run(100.0)
    assert calls == 2 * 4 + 3
    assert least_s == pytest.approx(110 / 4 * len(wanted))
    assert run(1e6) == run(None) == []


def test_a_noisy_machine_is_noted(structure, steady_device) -> None:
    generator = random.Random(0)
    device = steady_device(pace=lambda number: generator.uniform(1, 3))
    notes = refine(device, structure, operators_of(structure)).provenance.notes
    assert any("the machine is noisy" in note for note in notes)


def test_clocks_that_rise_in_the_middle_give_the_times_of_the_faster_level(structure, steady_device) -> None:
    wanted = operators_of(structure)
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.5 if number < 20 else 1.0)
    table = refine(device, structure, wanted)
    assert table.provenance.notes == ()
    assert all(entry.median_ms == pytest.approx(2.0) for entry in table.entries)


def test_clocks_that_fall_in_the_middle_give_the_times_of_one_level_and_are_noted(structure, steady_device) -> None:
    wanted = operators_of(structure)
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.0 if number < 20 else 1.5)
    table = refine(device, structure, wanted)
    assert all(entry.median_ms == pytest.approx(3.0) for entry in table.entries)
    (note,) = table.provenance.notes
    assert "operators spread by more than 25% of their time" in note


def test_operators_that_are_hardly_ever_undisturbed_are_noted(structure, steady_device) -> None:
    wanted = operators_of(structure)
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.2**number)
    note = refine(device, structure, wanted, max_rounds=4).provenance.notes[0]
    assert "clocks or other work changed meanwhile" in note
    assert f"{len(wanted)} operators were hardly ever seen undisturbed" in note


def test_clocks_that_change_for_good_leave_rows_that_do_not_compare_which_is_noted(
    structure, steady_device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "CHUNK", 4)
    wanted = operators_of(structure)
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.0 if number < 48 else 1.5)
    table = refine(device, structure, wanted)
    assert {entry.median_ms for entry in table.entries} >= {2.0, 3.0}
    note = " ".join(table.provenance.notes)
    assert "rows do not compare; hold the clocks fixed" in note
    slow = sum(entry.median_ms == 3.0 for entry in table.entries)
    assert f"{slow} of {len(wanted)} operators were measured while" in note


def test_what_a_slow_spell_hit_is_measured_again_once_it_is_over(
    structure, steady_device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "CHUNK", 4)
    wanted = operators_of(structure)
    # A chunk of 4 takes 16 samples: one of the reference, and three rounds of 4 and the reference.
    device = steady_device(lambda operator: 2.0, pace=lambda number: 1.5 if 16 <= number < 48 else 1.0)
    table = refine(device, structure, wanted)
    assert {entry.operator for entry in table.entries} == set(wanted)
    assert {entry.median_ms for entry in table.entries} == {2.0}
    assert table.provenance.notes == ()


def test_a_machine_at_another_speed_than_the_file_is_noted(structure, steady_device, tmp_path: Path) -> None:
    wanted = operators_of(structure)
    refine(steady_device(), structure, [*wanted[:-1], reference_of(wanted, "fp32")], tmp_path / "t.json")
    table = refine(steady_device(pace=lambda number: 1.5), structure, wanted, tmp_path / "t.json")
    (note,) = table.provenance.notes
    assert "the machine runs at another speed than when the table was begun" in note


def test_a_table_of_one_point_without_spread_is_a_table(structure, steady_device) -> None:
    only = Operator.of(OperatorKind.LAYER_NORM, tokens=17, features=64)
    table = refine(steady_device(), structure, [only])
    assert isinstance(table, LatencyTable)
    (row,) = table.entries
    assert (row.operator, row.spread_ms) == (only, 0)


def test_a_resumed_table_keeps_its_energy_and_the_corrections_that_still_hold(
    structure, steady_device, tmp_path: Path
) -> None:
    path, wanted = tmp_path / "t.json", operators_of(structure, *(n / 64 for n in range(1, 65)))

    def cost(operator: Operator) -> float:
        return 1.0 if any(256 < size < 512 for _, size in operator.axes) else 2.0

    hasty = refine(steady_device(cost), structure, wanted, path, seconds=0.0)
    fit = Correction(scale=1.1, overhead_ms=0.1, models=2, median_error_pct=1.0, max_error_pct=2.0)
    power = MeasuredPower(source="meter", watts={Arithmetic.FLOAT32: 10.0})
    space = build_space(structure, SpaceConfig(), target_formats=("fp32", "w8a8"), channel_multiple=8)

    def corrected(width: int) -> LatencyTable:
        operator = Operator.of(OperatorKind.LINEAR, format="fp32", tokens=17, in_features=64, out_features=width)
        time_ms = LatencyPredictor(hasty, WORKLOAD).operator_ms(operator)
        return hasty.with_correction(WORKLOAD, fit, CorrectionBasis.of(space, {operator: time_ms}, wanted=2))

    for width, kept in ((512, fit), (384, None)):
        corrected(width).model_copy(update={"energy": power}).save(path)
        resumed = refine(steady_device(cost), structure, wanted, path)
        assert (resumed.correction(WORKLOAD), resumed.energy) == (kept, power)


def test_curves_are_measured_once_and_leave_no_correction_that_was_fitted_without(
    structure, steady_device, tmp_path: Path
) -> None:
    out = tmp_path / "t.json"
    wanted = operators_of(structure)
    session = open_session(steady_device(), structure, out)
    plain = session.measure(wanted[1:])
    tokens = WORKLOAD.tokens
    fit = Correction(scale=1.1, overhead_ms=0.2, models=5, median_error_pct=1.5, max_error_pct=3.0)
    plain.with_correction(WORKLOAD, fit).with_correction(replace(WORKLOAD, batch=99), fit).save(out)
    again = open_session(steady_device(), structure, out)
    again.measure(wanted)
    product = next(o for o in wanted if o.kind is OperatorKind.LINEAR and o.format == "fp32")
    table = again.add_curves({("fp32", tokens): product})
    assert load_table(out) == table
    assert [(curve.format, curve.tokens) for curve in table.caches] == [("fp32", tokens)]
    assert table.corrections == ()
    third = open_session(steady_device(), structure, out)
    third.measure(wanted)
    assert third.add_curves({("fp32", tokens): product}) == table


def test_a_table_with_a_correction_that_gains_no_row_stays_as_it_is(structure, steady_device, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    wanted = operators_of(structure)
    fit = Correction(scale=1.1, overhead_ms=0.2, models=5, median_error_pct=1.5, max_error_pct=3.0)
    before = open_session(steady_device(), structure, out).measure(wanted).with_correction(WORKLOAD, fit)
    before.save(out)
    session = open_session(steady_device(), structure, out)
    session.measure(wanted)
    product = next(o for o in wanted if o.kind is OperatorKind.LINEAR and o.format == "fp32")
    assert session.add_curves({("fp32", WORKLOAD.tokens): product}) == before
    assert load_table(out) == before


def test_a_curve_of_a_smaller_model_is_measured_anew(structure, steady_device, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    wanted = operators_of(structure)
    small = CacheCurve(format="fp32", tokens=WORKLOAD.tokens, sizes_bytes=(1_000, 2_000), times=(0.5, 1.0))
    open_session(steady_device(), structure, out).measure(wanted).model_copy(update={"caches": (small,)}).save(out)
    session = open_session(steady_device(), structure, out)
    session.measure(wanted)
    product = next(o for o in wanted if o.kind is OperatorKind.LINEAR and o.format == "fp32")
    (curve,) = session.add_curves({("fp32", WORKLOAD.tokens): product}).caches
    assert curve.sizes_bytes[-1] == working_set_bytes(structure, None)


def test_nothing_to_measure_is_refused(structure, steady_device) -> None:
    with pytest.raises(ValueError, match="at least one operator; got none"):
        refine(steady_device(), structure, [])


def test_a_file_of_another_target_is_left_alone(structure, steady_device, tmp_path: Path) -> None:
    refine(steady_device(), structure, operators_of(structure), tmp_path / "t.json")

    class Other(steady_device):
        def fingerprint(self):
            return super().fingerprint().model_copy(update={"threads": 2})

    with pytest.raises(ForeignTableError, match="threads: 1 there, 2 here"):
        open_session(Other(), structure, tmp_path / "t.json")


def test_this_machine_is_profiled(tmp_path: Path, structure: ModelStructure) -> None:
    seen: list[tuple[int, int]] = []
    required = operators_of(structure)
    table = profile(
        required,
        structure,
        target="cpu-onnxruntime",
        threads=1,
        out=tmp_path / "t.json",
        budget=ProfileBudget(rounds=2, max_rounds=2, runs=3),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert load_table(tmp_path / "t.json") == table
    assert table.fingerprint == OnnxRuntimeCpu(1).fingerprint()
    assert (2 * len(required), 2 * len(required)) in seen
    assert seen[-1][0] == seen[-1][1] > 2 * len(required)
    assert {(curve.format, curve.tokens) for curve in table.caches} == {("fp32", 17), ("w8a8", 17), ("w4", 17)}
    predictor = LatencyPredictor(table, WORKLOAD)
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in structure.units})
    small = Policy({unit.name: Choice(unit.groups // 2, "w8a8") for unit in structure.units})
    assert 0.01 < predictor.policy_ms(structure, dense) < 100
    assert predictor.policy_ms(structure, small) < predictor.policy_ms(structure, dense)
