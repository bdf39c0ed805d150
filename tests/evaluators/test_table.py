from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.latency.correction import Correction
from evaluators.latency.table import (
    Entry,
    Fingerprint,
    LatencyTable,
    Provenance,
    TableError,
    load_table,
    parse_table,
)
from evaluators.latency.workload import Operator, OperatorKind, Workload

HERE = Fingerprint(device="x", flags=("avx2",), runtime="onnxruntime", runtime_version="1", threads=1, os="Linux")
WORKLOAD = Workload(batch=1, sequence_length=8)
FIT = Correction(scale=1.1, overhead_ms=0.2, models=5, median_error_pct=1.5, max_error_pct=3.0)


def entry(median_ms: float = 0.5, spread_ms: float = 0.1, **axes: int) -> Entry:
    return Entry(
        kind=OperatorKind.QUANTIZE,
        axes={"tokens": 8, "features": 16, **axes},
        median_ms=median_ms,
        spread_ms=spread_ms,
        repeats=3,
        working_set_bytes=100,
    )


def table(*entries: Entry) -> LatencyTable:
    provenance = Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=2, notes=("noisy",))
    return LatencyTable(target="t", fingerprint=HERE, provenance=provenance, entries=entries)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10**6),
            st.floats(0, 1e9, exclude_min=True, allow_nan=False),
            st.floats(0, 1e9, allow_nan=False),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_text_round_trips(rows: list[tuple[int, float, float]]) -> None:
    written = table(*(entry(median, spread, features=width) for width, median, spread in rows))
    read = parse_table(written.to_json())
    assert read == written
    assert read.to_json() == written.to_json()
    assert read.checksum == written.checksum


def test_a_file_round_trips_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    written = table(entry(), entry(features=32)).with_correction(WORKLOAD, FIT)
    path = tmp_path / "new" / "table.json"
    written.save(path)
    written.save(path)
    assert load_table(path) == written
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.json"
    table(entry()).save(path)
    before = path.read_text()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        table(entry(), entry(features=32)).save(path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_entry_names_its_operator() -> None:
    assert entry().operator == Operator.of(OperatorKind.QUANTIZE, tokens=8, features=16)


def test_a_correction_is_replaced_by_workload() -> None:
    other = Workload(batch=2, sequence_length=8)
    twice = table(entry()).with_correction(WORKLOAD, FIT).with_correction(other, FIT)
    newer = twice.with_correction(WORKLOAD, FIT.model_copy(update={"scale": 2.0}))
    assert len(newer.corrections) == 2
    assert newer.correction(WORKLOAD) == FIT.model_copy(update={"scale": 2.0})
    assert newer.correction(other) == FIT
    assert newer.correction(Workload(batch=3, sequence_length=8)) is None


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no latency table .*table\.json.*paretrim profile"):
        load_table(tmp_path / "table.json")


def test_fields_outside_rows_are_guarded_by_the_checksum() -> None:
    text = table(entry()).to_json()
    with pytest.raises(TableError, match="something outside its rows was altered"):
        parse_table(text.replace('"threads": 1', '"threads": 4'))
