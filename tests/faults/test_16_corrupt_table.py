"""Row 16: a latency table that is corrupt, negative or NaN is refused, and the row is named."""

import json
from pathlib import Path

import pytest

from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.summary import find_oddities
from evaluators.latency.table import (
    Entry,
    Fingerprint,
    LatencyTable,
    Provenance,
    TableError,
    load_table,
    reading,
)
from evaluators.latency.table.base import digest_of
from evaluators.latency.workload import OperatorKind, Workload

ROW = r"entries\[1\] \(linear w8a8 in_features=16 out_features=32 tokens=8\)"


def entry(out_features):
    return Entry(
        kind=OperatorKind.LINEAR,
        format="w8a8",
        axes={"tokens": 8, "in_features": 16, "out_features": out_features},
        median_ms=0.5,
        spread_ms=0.1,
        repeats=3,
        working_set_bytes=0,
    )


@pytest.fixture
def path(tmp_path):
    LatencyTable(
        target="cpu-onnxruntime",
        fingerprint=Fingerprint(device="x", runtime="onnxruntime", runtime_version="1", threads=1, os="Linux"),
        provenance=Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=1),
        entries=(entry(16), entry(32), entry(64)),
    ).save(tmp_path / "table.json")
    return tmp_path / "table.json"


def alter(path: Path, change) -> None:
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("field", "value", "finding"),
    [
        ("median_ms", -0.5, "median_ms: .*greater than 0.*got -0.5"),
        ("median_ms", 0, "median_ms: .*greater than 0"),
        ("median_ms", float("nan"), "median_ms: .*finite number; got nan"),
        ("median_ms", float("inf"), "median_ms: .*finite number; got inf"),
        ("median_ms", "0.5", "median_ms: .*valid number; got '0.5'"),
        ("median_ms", None, "median_ms: .*valid number"),
        ("spread_ms", -1, "spread_ms: .*greater than or equal to 0"),
        ("repeats", 0, "repeats: .*greater than 0"),
        ("note", "x", "note: Extra inputs are not permitted"),
    ],
)
def test_a_bad_value_names_its_row(path, field, value, finding):
    alter(path, lambda body: body["entries"][1].__setitem__(field, value))
    with pytest.raises(TableError, match=rf"table\.json: {ROW}: {finding}"):
        load_table(path)


def test_a_missing_field_names_its_row(path):
    alter(path, lambda body: body["entries"][1].pop("median_ms"))
    with pytest.raises(TableError, match=rf"{ROW}: median_ms: Field required"):
        load_table(path)


def test_an_altered_time_names_its_row(path):
    alter(path, lambda body: body["entries"][1].__setitem__("median_ms", 0.25))
    with pytest.raises(TableError, match=rf"{ROW}: the checksum of the row is .* the row was altered; profile again"):
        load_table(path)


def test_a_row_that_is_no_object_is_named(path):
    alter(path, lambda body: body["entries"].__setitem__(1, 0.5))
    with pytest.raises(TableError, match=r"entries\[1\]: a row is an object; got 0\.5"):
        load_table(path)


def test_a_repeated_row_is_named(path):
    alter(path, lambda body: body["entries"].append(body["entries"][1]))
    with pytest.raises(TableError, match=r"entries\[1\] and entries\[3\] for linear w8a8 in_features=16"):
        load_table(path)


def test_a_removed_row_is_found_by_the_checksum(path):
    alter(path, lambda body: body["entries"].pop())
    with pytest.raises(TableError, match="the checksum of the table is"):
        load_table(path)


def test_a_checksum_that_is_missing_or_wrong_is_refused(path):
    alter(path, lambda body: body.pop("checksum"))
    with pytest.raises(TableError, match="the file says None"):
        load_table(path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_says_the_way_out(path, version):
    alter(path, lambda body: body.__setitem__("schema_version", version))
    with pytest.raises(TableError, match=r"schema_version 1; got .*profile again, or use the paretrim release"):
        load_table(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"entries": 3}', "[" * 100_000, "\x00"])
def test_what_is_no_table_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(TableError, match="a latency table is one JSON object"):
        load_table(path)


def test_half_a_file_is_refused(path):
    path.write_text(path.read_text()[:300])
    with pytest.raises(TableError, match="a latency table is one JSON object"):
        load_table(path)


def test_bytes_that_are_no_text_are_refused(path):
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match=r"table\.json: 'utf-8' codec"):
        load_table(path)


def test_a_huge_file_is_refused_before_it_is_read(path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 100)
    with pytest.raises(TableError, match="at most 100 bytes; got"):
        load_table(path)


def test_a_table_of_one_point_answers_for_it_alone(tmp_path):
    table = load_table_of(tmp_path, entry(16))
    predictor = LatencyPredictor(table, Workload(batch=1, sequence_length=8), allow_extrapolation=True)
    assert predictor.operator_ms(entry(16).operator) == 0.5
    with pytest.raises(MissingEntryError, match=r"lacks linear .*\(linear w8a8 was measured for 16 out_features\)"):
        predictor.operator_ms(entry(32).operator)
    assert "answers for what it holds and for nothing else" in " ".join(find_oddities(table))


def test_zero_spread_is_no_error_and_is_said(tmp_path):
    table = load_table_of(tmp_path, *(entry(size).model_copy(update={"spread_ms": 0.0}) for size in (16, 32)))
    assert [e.relative_spread for e in table.entries] == [0.0, 0.0]
    assert "all took the same time" in " ".join(find_oddities(table))


def test_axes_that_the_kind_does_not_have_are_refused(path):
    alter(path, lambda body: body["entries"][1]["axes"].pop("tokens"))
    with pytest.raises(TableError, match="the axes of linear are tokens, in_features, out_features; got in_features"):
        load_table(path)


def test_a_file_of_a_release_with_fewer_fields_is_read(path):
    before = load_table(path)

    def strip(body):
        del body["fingerprint"]["driver"], body["provenance"]["sources"]
        rows = [_without_checksum(row) for row in body["entries"]]
        body["checksum"] = digest_of({**_without_checksum(body), "entries": rows})

    alter(path, strip)
    assert load_table(path) == before


def _without_checksum(fields):
    return {key: value for key, value in fields.items() if key != "checksum"}


def load_table_of(folder, *entries):
    LatencyTable(
        target="cpu-onnxruntime",
        fingerprint=Fingerprint(device="x", runtime="onnxruntime", runtime_version="1", threads=1, os="Linux"),
        provenance=Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=1),
        entries=entries,
    ).save(folder / "one.json")
    return load_table(folder / "one.json")
