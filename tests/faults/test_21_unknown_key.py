"""Row 21: an unknown key is an error with "did you mean"."""

import pytest

from controller.job import JobError, parse_job
from controller.job_file import load_job

JOB = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("serch", {}, "serch: unknown key; did you mean 'search'?"),
        ("objective", ["quality"], "objective: unknown key; did you mean 'objectives'?"),
        ("search", {"trails": 3}, "search.trails: unknown key; did you mean 'trials'?"),
        ("target", {"sequence-length": 3}, "target.sequence-length: unknown key; did you mean 'sequence_length'?"),
        (
            "space",
            {"override": [{"units": "*", "keeps": [1]}]},
            "space.override.0.keeps: unknown key; did you mean 'keep'?",
        ),
        ("data", {"source": "a", "columns": {"lable": "y"}}, "data.columns.lable: unknown key; did you mean 'label'?"),
    ],
)
def test_a_near_key_is_suggested(key, value, line):
    with pytest.raises(JobError, match="problem") as caught:
        parse_job({**JOB, key: value})
    assert caught.value.problems == (line,)


def test_where_no_key_is_near_the_valid_ones_are_listed():
    with pytest.raises(
        JobError, match=r"mlflow\.zzz: unknown key; the keys here are enabled, tracking_uri, experiment"
    ):
        parse_job({**JOB, "mlflow": {"zzz": 1}})


def test_unknown_keys_come_with_line_and_column_and_do_not_hide_each_other(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: a\nmodle: {id: m}\ndata: {source: d, sorce: e}\n")
    with pytest.raises(JobError, match="3 problems") as caught:
        load_job(path)
    assert "line 2, column 1: modle: unknown key; did you mean 'model'?" in caught.value.problems
    assert "line 3, column 19: data.sorce: unknown key; did you mean 'source'?" in caught.value.problems
    assert any(line.startswith("line 1, column 1: model: required, and missing") for line in caught.value.problems)


def test_a_long_or_odd_key_is_shown_harmless_and_short(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: a\nmodel: {id: m}\ndata: {source: d}\n" + f'"{"k" * 900}": 1\n"\\u202Ex": 2\n')
    with pytest.raises(JobError, match="2 problems") as caught:
        load_job(path)
    assert all(len(line) < 400 and line.isprintable() for line in caught.value.problems)
