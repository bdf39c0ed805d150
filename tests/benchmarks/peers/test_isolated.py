"""Peers in processes of their own: drivers of a few lines, run by this Python."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.peers.isolated import PeerError, ensure_environment, run_driver


def driver(folder: Path, body: str) -> Path:
    path = folder / "driver.py"
    path.write_text(f"import json, sys\nrequest = json.load(open(sys.argv[1]))\n{body}\n", encoding="utf-8")
    return path


def test_a_driver_gets_its_request_and_its_models_are_read(tmp_path):
    body = """
open('a.onnx', 'wb').close()
json.dump({'models': [{'name': request['word'], 'file': 'a.onnx', 'made_in_s': 2}]}, open('answer.json', 'w'))"""
    answer = run_driver(Path(sys.executable), driver(tmp_path, body), {"word": "one"}, tmp_path)
    assert [(each.name, each.file) for each in answer.models] == [("one", "a.onnx")]


def test_a_driver_that_makes_nothing_says_why(tmp_path):
    body = "json.dump({'reason': 'needs a GPU'}, open('answer.json', 'w'))"
    answer = run_driver(Path(sys.executable), driver(tmp_path, body), {}, tmp_path)
    assert (answer.models, answer.reason) == ((), "needs a GPU")


def test_a_driver_that_fails_is_quoted(tmp_path):
    script = driver(tmp_path, "raise RuntimeError('no such kernel')")
    with pytest.raises(PeerError, match=r"driver\.py.* failed: .*RuntimeError: no such kernel"):
        run_driver(Path(sys.executable), script, {}, tmp_path)


def test_a_driver_that_names_a_file_it_did_not_write_is_refused(tmp_path):
    answer = json.dumps({"models": [{"name": "a", "file": "a.onnx", "made_in_s": 1}]})
    script = driver(tmp_path, f"open('answer.json', 'w').write({answer!r})")
    with pytest.raises(PeerError, match=r"names models that it did not write: a\.onnx"):
        run_driver(Path(sys.executable), script, {}, tmp_path)


def test_a_driver_without_an_answer_is_refused(tmp_path):
    with pytest.raises(PeerError, match=r"ended without an answer that can be read"):
        run_driver(Path(sys.executable), driver(tmp_path, "pass"), {}, tmp_path)


def test_what_was_answered_before_is_asked_again_only_where_the_request_changed(tmp_path):
    body = """
with open('calls', 'a') as file: file.write('x')
json.dump({'reason': request['word']}, open('answer.json', 'w'))"""
    script = driver(tmp_path, body)
    for word in ("one", "one", "two"):
        assert run_driver(Path(sys.executable), script, {"word": word}, tmp_path).reason == word
    assert (tmp_path / "calls").read_text() == "xx"


@pytest.mark.slow
def test_an_environment_is_made_anew_only_where_its_pins_changed(tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("", encoding="utf-8")
    python = ensure_environment(tmp_path / "env", pins)
    mark = tmp_path / "env" / "mark"
    mark.touch()
    assert ensure_environment(tmp_path / "env", pins) == python
    assert mark.exists()
    pins.write_text("# nothing\n", encoding="utf-8")
    ensure_environment(tmp_path / "env", pins)
    assert python.exists()
    assert not mark.exists()
