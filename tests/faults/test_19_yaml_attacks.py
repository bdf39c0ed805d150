"""Row 19: YAML with python tags, anchors that explode, huge files: refused within limits."""

import json
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from controller.job import JobError
from controller.job_file import load_job
from controller.plain_file import MAX_BYTES, MAX_DEPTH, MAX_ENTRIES

JOB = "name: demo\nmodel: {id: org/model}\ndata: {source: org/data}\n"
STEPS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = 'a: &a ["x"]\n' + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in STEPS)


def refuse(tmp_path, text, match, name="job.yaml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    started = time.monotonic()
    with pytest.raises(JobError, match=match):
        load_job(path)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "tagged",
    [
        "!!python/object/apply:os.system [touch pwned]",
        "!!python/name:os.system x",
        "!!python/object/new:os.system [x]",
        "!!str 1",
        "!own {a: 1}",
        "! x",
        "!<tag:yaml.org,2002:int> 3",
    ],
)
def test_tags_are_refused_and_run_nothing(tmp_path, monkeypatch, tagged):
    monkeypatch.chdir(tmp_path)
    refuse(tmp_path, JOB + f"space: {tagged}\n", r"line 4, column 8: a job file has no tags; got '!")
    assert not (tmp_path / "pwned").exists()


def test_anchors_and_aliases_are_refused(tmp_path):
    refuse(tmp_path, JOB + BOMB, r"line 4, column 4: a job file has no anchors")
    refuse(tmp_path, JOB + "space: *x\n", "no anchors")
    refuse(tmp_path, "&a [*a]", "no anchors")


def test_merge_keys_are_refused(tmp_path):
    refuse(tmp_path, JOB + "<<: {name: other}\n", r"line 4, column 1: .* no merge keys")


def test_a_huge_file_is_refused_unread(tmp_path):
    refuse(tmp_path, "#" * (MAX_BYTES + 1), "at most 1,000,000 bytes")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 900_000,
        "- " * 400_000,
        "? " * 400_000,
        "a: " + "{a: " * MAX_DEPTH + "1" + "}" * MAX_DEPTH,
        "".join(" " * level + "-\n" for level in range(30)),
    ],
    ids=["flow", "block", "keys", "mappings", "lines"],
)
def test_deep_nesting_is_refused(tmp_path, text):
    refuse(tmp_path, text, "nested at most 20 deep|not YAML")


def test_many_entries_are_refused(tmp_path):
    refuse(tmp_path, "a: [" + "1," * MAX_ENTRIES + "]", "at most 20000 entries")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"a":' * 50_000, "nested at most 20 deep"),
        ('{"a":' * 30 + "1" + "}" * 30, "nested at most 20 deep"),
        ('{"a": 1' + "0" * 6000 + "}", "too many digits"),
        ('{"name": "a", "name": "b"}', "key 'name' occurs twice"),
        ("[1", "line 1, column 3: not JSON"),
    ],
)
def test_hostile_json_is_refused(tmp_path, text, match):
    refuse(tmp_path, text, match, name="job.json")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "this one is empty"),
        ("\ufeff \n\n", "this one is empty"),
        ("# nothing\n", "comments only"),
        ("- a\n", "mapping of keys to values; got list"),
        ("hello", "mapping of keys to values; got str"),
        ("name: a\x00b\n", r"line 1, column 8: .*'\\x00'"),
        ("name: a\n  \x1b[31m\n", r"line 2, column 3: .*'\\x1b'"),
        (b"name: a\nmodel: \xff\n", "line 2: a job file is UTF-8; got byte 0xff"),
        ("name: x".encode("utf-16"), "UTF-8"),
        (JOB + "---\nname: b\n", "line 4, column 1: not YAML: expected a single document"),
        ("name: [a\n", "line 2, column 1: not YAML"),
        ("? [a]\n: 1\n", "a key is text"),
        (JOB + 'space: "\\UFFFFFFFF"\n', "not YAML"),
        ('name: "a\\0b"\nmodel: {id: m}\ndata: {source: d}\n', "name: must hold no control characters"),
        ('name: "\\ud800"\nmodel: {id: m}\ndata: {source: d}\n', "control characters"),
    ],
)
def test_what_is_no_job_is_said_clearly(tmp_path, text, match):
    refuse(tmp_path, text, match)


def test_what_is_no_file_is_said_clearly(tmp_path):
    for path, match in (
        (tmp_path, "this is a folder"),
        (tmp_path / "none.yaml", "there is no such file; check the path"),
        ("/dev/zero", "no regular file"),
        ("a\0b", "no such file"),
    ):
        with pytest.raises(JobError, match=match):
            load_job(path)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "model", "data", "space", "target", "objectives", "search", "storage", "mlflow", "x"])
BITS = st.sampled_from(
    [*"[]{}:,-?&*!|>'\"%@`#~\n\t \\", "name: ", "model: ", "  ", "- ", "id: a", "<<: ", "!!", "\\ud800", "1e999", "010"]
)


def outcome(path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        load_job(path)
    except JobError as error:
        return str(error)
    return ""


def read_or_refuse(path, content: bytes):
    message = outcome(path, content)
    assert message.replace("\n", "").isprintable()
    assert not message or "problem" in message


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.lists(BITS, max_size=30).map("".join).map(str.encode))
@example(content=b"\xef\xbb\xbf")
@example(content=b"%YAML 99999999999999999999999.1\n---\na: 1\n")
def test_no_bytes_lead_to_another_error(tmp_path, content):
    read_or_refuse(tmp_path / "job.yaml", content)
    read_or_refuse(tmp_path / "job.json", content)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(KEYS, PLAIN, max_size=6))
def test_no_values_lead_to_another_error(tmp_path, content):
    text = json.dumps(content).encode()
    read_or_refuse(tmp_path / "job.json", text)
    read_or_refuse(tmp_path / "job.yaml", text)
