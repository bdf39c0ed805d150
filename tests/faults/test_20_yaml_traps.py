"""Row 20: YAML's traps: duplicate keys, 1e-3 as text, 010 as 8, on as true."""

import pytest

from controller.job import JobError
from controller.job_file import load_job

JOB = "name: demo\nmodel: {id: org/model}\ndata: {source: org/data}\n"


def load(tmp_path, text):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return load_job(path)


def test_duplicate_keys_are_refused_at_every_level(tmp_path):
    with pytest.raises(JobError, match="line 4, column 1: key 'name' occurs twice, first in line 1"):
        load(tmp_path, JOB + "name: other\n")
    with pytest.raises(JobError, match="line 2, column 16: key 'id' occurs twice"):
        load(tmp_path, "name: a\nmodel: {id: a, id: b}\n")
    with pytest.raises(JobError, match="key 'name' occurs twice"):
        load(tmp_path, JOB + '"name": other\n')


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("1E3", 1000.0), ("+2.5", 2.5), (".5", 0.5), ("3", 3.0), ("1.e2", 100.0)]
)
def test_numbers_are_numbers(tmp_path, text, value):
    job = load(tmp_path, JOB + f"constraints: {{max_latency_ms: {text}}}\n")
    assert job.constraints.max_latency_ms == value


@pytest.mark.parametrize("text", ["010", "-010", "00", "0_7", "+08"])
def test_leading_zeros_are_refused_wherever_they_stand(tmp_path, text):
    with pytest.raises(JobError, match=r"line 4, column 18: a number has no leading zero, .* write "):
        load(tmp_path, JOB + f"search: {{trials: {text}}}\n")


def test_a_zero_and_a_quoted_number_with_zeros_are_fine(tmp_path):
    assert load(tmp_path, JOB + "search: {seed: 0}\n").search.seed == 0
    job = load(tmp_path, 'name: "007"\nmodel: {id: m, revision: "0123"}\ndata: {source: d}\n')
    assert (job.name, job.model.revision) == ("007", "0123")


@pytest.mark.parametrize("text", ["on", "off", "yes", "no", "y", "On", "1", '"true"', "0x1"])
def test_only_true_and_false_are_booleans(tmp_path, text):
    with pytest.raises(JobError, match=r"data\.shuffle: must be a valid boolean; got .*; write true or false"):
        load(tmp_path, f"name: a\nmodel: {{id: m}}\ndata: {{source: d, shuffle: {text}}}\n")


def test_words_that_old_yaml_takes_for_booleans_are_names(tmp_path):
    assert load(tmp_path, "name: no\nmodel: {id: on}\ndata: {source: yes}\n").name == "no"
    assert load(tmp_path, JOB + "mlflow: {enabled: false}\n").mlflow.enabled is False


@pytest.mark.parametrize("text", ["1_000", "0x10", "0o17", "1:30", "12:30:45", '"7"', "1.0", "7 trials", "2001-01-01"])
def test_what_is_no_plain_integer_is_no_integer(tmp_path, text):
    with pytest.raises(JobError, match=r"search\.trials: must be a valid integer; got "):
        load(tmp_path, JOB + f"search: {{trials: {text}}}\n")


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", ".NaN", "1e999"])
def test_bounds_are_finite(tmp_path, text):
    with pytest.raises(JobError, match=r"constraints\.max_latency_ms: must be a finite number; got (-?inf|nan)"):
        load(tmp_path, JOB + f"constraints: {{max_latency_ms: {text}}}\n")


@pytest.mark.parametrize(("text", "got"), [("7", "7"), ("1e3", "1000.0"), ("true", "True")])
def test_text_that_looks_like_something_else_needs_quotes(tmp_path, text, got):
    with pytest.raises(JobError, match=rf"name: must be a valid string; got {got}; put it in quotes"):
        load(tmp_path, f"name: {text}\nmodel: {{id: m}}\ndata: {{source: d}}\n")


@pytest.mark.parametrize("text", ["", "~", "null"])
def test_nothing_is_null(tmp_path, text):
    assert load(tmp_path, JOB + f"constraints:\n  max_latency_ms: {text}\n").constraints.max_latency_ms is None
