"""Joining and comparing tables, and what is said of one."""

import pytest

from evaluators.latency.correction import Correction
from evaluators.latency.diff import compare_tables
from evaluators.latency.merge import merge_tables
from evaluators.latency.summary import find_oddities, summarise
from evaluators.latency.table import (
    CacheCurve,
    CorrectionBasis,
    Entry,
    Fingerprint,
    ForeignTableError,
    LatencyTable,
    Provenance,
)
from evaluators.latency.workload import Operator, OperatorKind, Workload

HERE = Fingerprint(device="x", runtime="onnxruntime", runtime_version="1", threads=1, os="Linux")
WORKLOAD, OTHER = Workload(batch=1, sequence_length=8), Workload(batch=2, sequence_length=8)


def fit(models: int = 5) -> Correction:
    return Correction(scale=1.1, overhead_ms=0.2, models=models, median_error_pct=1.5, max_error_pct=3.0)


def row(features: int, median_ms: float = 1.0, repeats: int | None = 10, spread_ms: float | None = 0.1) -> Entry:
    return Entry(
        kind=OperatorKind.QUANTIZE,
        axes={"tokens": 8, "features": features},
        median_ms=median_ms,
        spread_ms=spread_ms,
        repeats=repeats,
        working_set_bytes=0,
    )


def table(*entries: Entry, target: str = "t", measured_at: str = "2026-01-01", **fingerprint: object) -> LatencyTable:
    return LatencyTable(
        target=target,
        fingerprint=HERE.model_copy(update=fingerprint),
        provenance=Provenance(measured_at=measured_at, rounds=3, clocks="1 GHz", notes=(f"of {measured_at}",)),
        entries=entries,
    )


def test_rows_of_both_are_there_once_and_in_order():
    first, second = table(row(64), row(8)), table(row(16), row(8), measured_at="2026-02-02")
    merged = merge_tables(first, second)
    assert [entry.axes["features"] for entry in merged.table.entries] == [16, 64, 8]
    assert (merged.added, merged.conflicts, merged.dropped_corrections) == (1, (), ())
    provenance = merged.table.provenance
    assert (provenance.measured_at, provenance.rounds, provenance.clocks) == ("2026-02-02", 3, "1 GHz")
    assert provenance.notes[:2] == ("of 2026-01-01", "of 2026-02-02")
    assert first.checksum[:12] in provenance.notes[2]
    assert second.checksum[:12] in provenance.notes[2]


@pytest.mark.parametrize(
    ("first", "second", "kept_ms"),
    [(10, 20, 2.0), (20, 10, 1.0), (10, 10, 1.0), (None, 1, 2.0), (1, None, 1.0), (None, None, 1.0)],
)
def test_of_two_rows_the_one_with_more_repeats_stays(first, second, kept_ms):
    merged = merge_tables(table(row(8, 1.0, first)), table(row(8, 2.0, second)))
    assert merged.table.entries[0].median_ms == kept_ms
    assert merged.conflicts == (Operator.of(OperatorKind.QUANTIZE, tokens=8, features=8),)


def test_a_correction_stays_while_the_rows_that_it_was_fitted_on_do():
    first = table(row(8)).with_correction(WORKLOAD, fit())
    second = table(row(16)).with_correction(OTHER, fit()).with_correction(WORKLOAD, fit(models=9))
    merged = merge_tables(first, second).table
    assert merged.correction(WORKLOAD).models == 9
    assert merged.correction(OTHER) == fit()
    replaced = merge_tables(first, table(row(8, 2.0, 99)).with_correction(OTHER, fit()))
    assert replaced.table.correction(WORKLOAD) is None
    assert replaced.table.correction(OTHER) == fit()
    (dropped,) = replaced.dropped_corrections
    assert dropped.name == "batch 1, 8 tokens"


def test_a_correction_goes_where_a_row_comes_between_those_that_it_was_fitted_on():
    merged = merge_tables(table(row(8), row(32)).with_correction(WORKLOAD, fit()), table(row(16)))
    assert merged.table.corrections == ()
    assert [correction.fit for correction in merged.dropped_corrections] == [fit()]


def test_of_two_corrections_for_one_workload_the_one_that_goes_is_named():
    first = table(row(8)).with_correction(WORKLOAD, fit(models=6))
    merged = merge_tables(first, table(row(16)).with_correction(WORKLOAD, fit(models=9)))
    assert [correction.fit.models for correction in merged.outdone_corrections] == [6]
    assert merge_tables(first, table(row(16)).with_correction(WORKLOAD, fit(models=6))).outdone_corrections == ()


def test_corrections_of_two_models_both_stay():
    times_ms = {str(row(8).operator): 1.0}
    bases = [CorrectionBasis(model=name, wanted=5, covered={}, times_ms=times_ms) for name in ("bert-1", "bert-2")]
    first, second = (table(row(8)).with_correction(WORKLOAD, fit(), basis) for basis in bases)
    merged = merge_tables(first, second)
    assert [correction.basis for correction in merged.table.corrections] == bases
    assert (merged.dropped_corrections, merged.outdone_corrections) == ((), ())


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"threads": 2}, "threads: 1 in the first, 2 in the second"),
        ({"target": "u"}, "target: 't' in the first"),
        ({"driver": "550"}, "driver: None in the first, '550' in the second"),
    ],
)
def test_tables_of_other_machines_are_kept_apart(other, difference):
    with pytest.raises(ForeignTableError, match=f"these differ: {difference}.*keep them apart"):
        merge_tables(table(row(8)), table(row(16), **other))
    assert merge_tables(table(row(8)), table(row(8), **other)).table == table(row(8))


def test_a_comparison_names_ratios_and_what_only_one_has():
    diff = compare_tables(table(row(8), row(16), row(32)), table(row(8, 2.0), row(16, 0.25), row(64), threads=4))
    assert diff.differences == ("threads: 1 in the first, 4 in the second",)
    assert (diff.common, diff.only_first, diff.only_second) == (2, 1, 1)
    assert diff.median_ratio == pytest.approx(1.125)
    (kind,) = diff.kinds
    assert (kind.kind, kind.rows, kind.low, kind.high) == ("quantize", 2, 0.25, 2.0)
    assert [found.ratio for found in diff.largest] == [0.25, 2.0]


def test_tables_without_a_common_row_have_no_ratio():
    diff = compare_tables(table(row(8)), table(row(16)))
    assert (diff.common, diff.median_ratio, diff.kinds, diff.largest) == (0, None, (), ())


def test_a_summary_has_ranges_by_kind():
    (kind,) = summarise(table(row(8, 1.0), row(64, 4.0, repeats=5, spread_ms=None)))
    assert (kind.kind, kind.rows, kind.low_ms, kind.high_ms) == ("quantize", 2, 1.0, 4.0)
    assert kind.axes == {"tokens": (8, 8), "features": (8, 64)}
    assert (kind.spread, kind.repeats) == (pytest.approx(0.1), 5)


def test_a_larger_operator_that_is_clearly_faster_is_odd():
    noisy = table(row(8, 1.0), row(16, 0.95), row(32, 2.0))
    assert find_oddities(noisy) == ()
    (warning,) = find_oddities(table(row(8, 1.0), row(16, 0.5), row(32, 2.0)))
    assert "quantize features=16 tokens=8 takes 0.50 of quantize features=8 tokens=8" in warning


def test_zero_spread_and_a_single_row_are_odd():
    erring = table(row(8, 1.0), row(16, 2.0)).with_correction(
        Workload(batch=2, sequence_length=8),
        Correction(scale=1.0, overhead_ms=0.0, models=8, median_error_pct=19.0, max_error_pct=22.0),
    )
    (warning,) = find_oddities(erring)
    assert "a median error of 19.0 % for batch 2, 8 tokens" in warning
    spread, alone = find_oddities(table(row(8, spread_ms=0.0)))
    assert "1 of 1 rows have runs that all took the same time" in spread
    assert "answers for what it holds and for nothing else" in alone
    assert len(find_oddities(table(row(8, spread_ms=0.0, repeats=1)))) == 1


def test_curves_of_both_are_there_and_corrections_fitted_without_them_are_not():
    near, far = (CacheCurve(format="fp32", tokens=tokens, sizes_bytes=(1, 2), times=(0.5, 1.0)) for tokens in (8, 256))
    first = table(row(8)).model_copy(update={"caches": (near,)}).with_correction(WORKLOAD, fit())
    second = table(row(64)).model_copy(update={"caches": (far,)}).with_correction(OTHER, fit())
    merged = merge_tables(first, second)
    assert merged.table.caches == (near, far)
    # Of the second table's workload, 16 tokens, the first one's curve is closer than the one that its models were on.
    assert [c.key[:2] for c in merged.table.corrections] == [(1, 8)]
    assert [c.key[:2] for c in merged.dropped_corrections] == [(2, 8)]
    other = near.model_copy(update={"times": (0.9, 1.0)})
    again = merge_tables(first, table(row(8)).model_copy(update={"caches": (other,)}).with_correction(WORKLOAD, fit(9)))
    assert again.table.caches == (near,)
    assert [c.fit.models for c in again.table.corrections] == [5]
