"""Reading other people's times by a mapping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.latency.importing import import_table, read_entries
from evaluators.latency.mapping import OperatorMapping, SourceMapping, TableMapping
from evaluators.latency.source_file import SourceFileError
from evaluators.latency.table import TimeUnit, UnitBasis, load_table

CSV = "n,shard,layer,time,std,runs,dtype\n8,2,a,0.5,0.1,3,int4\n16,2,a,1.5,0.2,4,int8\n16,2,b,2.5,0.4,4,int8\n"


def mapping(unit: str = "ms", **operator: object) -> TableMapping:
    declared = {
        "kind": "linear",
        "format": "int4",
        "time": "time",
        "axes": {"tokens": "n", "in_features": 4, "out_features": 4},
    }
    return TableMapping(
        target="t",
        device="d",
        runtime="r",
        threads=1,
        time_unit=unit,
        time_unit_basis=UnitBasis.STATED,
        source=SourceMapping(name="s", licence="MIT"),
        operators=(OperatorMapping.model_validate({**declared, **operator}),),
    )


def read(text: str = CSV, **operator: object):
    return read_entries(text.encode(), mapping(**operator), name="x.csv")


@pytest.mark.parametrize(("unit", "factor"), [("s", 1000.0), ("ms", 1.0), ("us", 0.001)])
def test_times_become_milliseconds(unit, factor):
    spread = {"column": "std", "measure": "standard_deviation"}
    entries = read_entries(CSV.encode(), mapping(unit, spread=spread, repeats="runs"), name="x.csv")
    assert [e.median_ms for e in entries] == pytest.approx([0.5 * factor, 1.5 * factor, 2.5 * factor])
    assert entries[0].spread_ms == pytest.approx(0.1349 * factor)
    assert [e.repeats for e in entries] == [3, 4, 4]
    assert {e.working_set_bytes for e in entries} == {None}


@given(time=st.floats(1e-9, 1e9), tokens=st.integers(1, 10**9), unit=st.sampled_from(TimeUnit))
def test_any_time_and_size_is_read_as_written(time, tokens, unit):
    (entry,) = read_entries(f"n,time\n{tokens},{time!r}\n".encode(), mapping(unit), name="x.csv")
    assert entry.median_ms == time * unit.in_ms
    assert entry.axes["tokens"] == tokens


def test_what_a_source_does_not_state_is_not_known(tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    table = import_table(tmp_path / "x.csv", mapping())
    assert {(e.spread_ms, e.repeats, e.relative_spread) for e in table.entries} == {(None, None, None)}
    assert table.provenance.measured_at is None
    assert (table.fingerprint.runtime_version, table.fingerprint.os) == ("not stated", "not stated")
    table.save(tmp_path / "t.json")
    assert load_table(tmp_path / "t.json") == table


def test_an_operator_that_was_measured_again_has_the_median(tmp_path):
    (tmp_path / "x.csv").write_text(CSV)
    table = import_table(tmp_path / "x.csv", mapping(repeats="runs"))
    assert [(e.axes["tokens"], e.median_ms, e.repeats) for e in table.entries] == [(16, 2.0, 8), (8, 0.5, 3)]
    (source,) = table.provenance.sources
    assert (source.rows, source.joined, source.file) == (3, 1, "x.csv")


def test_axes_come_from_columns_factors_and_texts():
    axes = {
        "tokens": {"column": "n", "times": 3, "divided_by": "shard"},
        "in_features": {"column": "layer", "values": {"a": 64, "b": 32}},
        "out_features": {"column": "n", "divided_by": 8},
    }
    assert [e.axes for e in read(axes=axes)] == [
        {"tokens": 12, "in_features": 64, "out_features": 1},
        {"tokens": 24, "in_features": 64, "out_features": 2},
        {"tokens": 24, "in_features": 32, "out_features": 2},
    ]


def test_rows_are_picked_and_formats_read():
    entries = read(format=None, format_column="dtype", where={"shard": 2, "layer": "a"})
    assert [(e.format, e.median_ms) for e in entries] == [("int4", 0.5), ("int8", 1.5)]


@pytest.mark.parametrize(
    ("cell", "finding"),
    [
        ("0.5 ms", "plain decimal number, 0 or more, without its unit; got '0.5 ms'"),
        ("-1", "plain decimal number"),
        ("nan", "plain decimal number"),
        ("1e999", "median_ms: Input should be a finite number"),
        ("inf", "plain decimal number"),
        ("", "plain decimal number"),
        ("1_000", "plain decimal number"),
        ("0", "median_ms: .*greater than 0; got 0.0"),
    ],
)
def test_a_bad_time_names_its_line_and_column(cell, finding):
    with pytest.raises(SourceFileError, match=rf"x\.csv: line 2.*column 'time': .*{finding}"):
        read(f"n,time\n8,{cell}\n")


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "got none; is it whole"),
        ("n,time\n", "got none; is it whole"),
        ("n,time\n8\n", "line 2: every line has a cell for each of the 2 columns; got 1"),
        ("n,time,n\n8,1,8\n", r"a name of its own; got \['n'\] twice"),
        ("tokens,time\n8,1\n", r"\['n'\] are none; the file has tokens, time"),
        ("n,time\n8.5,1\n", "column 'n': a size is a whole number; got '8.5'"),
        ("n,time\n0,1\n", "axes.tokens: .*greater than 0"),
        ('n,time\n"8,1\n', "is CSV in UTF-8"),
        ("n;time\n8;1\n", r"are none; the file has n;time"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text, finding):
    with pytest.raises(SourceFileError, match=finding):
        read(text)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(SourceFileError, match="CSV in UTF-8; 'utf-8' codec"):
        read_entries(b"n,time\n\xff,1\n", mapping(), name="x.csv")


@pytest.mark.parametrize(
    ("operator", "finding"),
    [
        ({"where": {"layer": "z"}}, r"operators\[0\] \(linear\): `where` picks rows .*'z'\} picks none"),
        ({"axes": {"tokens": {"column": "layer", "values": {"a": 1}}, "in_features": 1, "out_features": 1}}, "got 'b'"),
        ({"axes": {"tokens": {"column": "n", "divided_by": 3}, "in_features": 1, "out_features": 1}}, "got 8 / 3"),
        ({"repeats": "layer"}, "column 'layer': a size is a whole number"),
        ({"spread": {"column": "sd", "measure": "standard_deviation"}}, r"\['sd'\] are none"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(operator, finding):
    with pytest.raises(SourceFileError, match=finding):
        read(**operator)


def test_a_file_that_is_missing_or_huge_is_refused(tmp_path, monkeypatch):
    with pytest.raises(SourceFileError, match="can't be read: No such file"):
        import_table(tmp_path / "x.csv", mapping())
    (tmp_path / "x.csv").write_text(CSV)
    monkeypatch.setattr("evaluators.latency.source_file.MAX_FILE_BYTES", 10)
    with pytest.raises(SourceFileError, match="at most 10 bytes"):
        import_table(tmp_path / "x.csv", mapping())
