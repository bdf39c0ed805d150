"""One search for two targets by the command line: a front for each, moved on, explained and exported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluators.latency.table import load_table
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu

pytestmark = pytest.mark.slow

PROGRAM = [str(Path(sys.executable).with_name("paretrim"))]


def run(*arguments, cwd, code=0):
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def searched(tiny_image, tmp_path_factory):
    """A finished search for one thread and for two: its folder and what the command printed."""
    folder = tmp_path_factory.mktemp("targets")
    table = load_table(tiny_image.table)
    entries = tuple(
        entry.model_copy(update={"median_ms": entry.median_ms * (9.0 if entry.format == "w8a8" else 0.6)})
        for entry in table.entries
    )
    table.model_copy(update={"entries": entries, "fingerprint": OnnxRuntimeCpu(2).fingerprint()}).save(
        folder / "two.json"
    )
    job = {
        "name": "tiny",
        "model": {"id": tiny_image.model.id, "task": tiny_image.model.task},
        "data": tiny_image.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.5, 0.0], "formats": ["fp32", "w8a8"]},
        "target": {"table": str(tiny_image.table)},
        "also": [{"table": "two.json", "evaluations": 2}],
        "search": {"sampler": "frontier", "trials": 8},
        "storage": f"sqlite:///{folder}/paretrim.db",
        "mlflow": {"enabled": False},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder, json.loads(run("search", "job.yaml", "--json", cwd=folder).stdout)


def storage(folder):
    return ("--storage", f"sqlite:///{folder}/paretrim.db")


def test_a_search_gives_a_front_for_each_target(searched):
    folder, result = searched
    (further,) = result["further"]
    assert (further["study"], further["origin"]) == ("tiny-2t", "tiny")
    assert further["target"] == "cpu-onnxruntime, 2 threads, 1 example a call"
    assert sum(row["taken_over"] for row in further["front"]) > 0
    shown = json.loads(run("front", "tiny-2t", "--json", *storage(folder), cwd=folder).stdout)
    assert shown["front"] == further["front"]
    again = json.loads(run("search", "job.yaml", "--json", cwd=folder).stdout)
    assert again["further"][0]["front"] == further["front"]


def test_the_same_study_moves_on(searched):
    folder, result = searched
    words = ("retarget", "tiny", "--table", "two.json", "--evaluations", 3, *storage(folder))
    report = json.loads(run(*words, "--json", cwd=folder).stdout)
    assert report["evaluations"] == 3
    assert report["result"]["hypervolume"] >= result["further"][0]["hypervolume"]
    text = run(*words, cwd=folder).stdout
    assert "front of tiny (cpu-onnxruntime, 1 thread, 1 example a call)" in text
    assert "retarget.html" in text
    refused = run("retarget", "tiny", "--threads", 0, *storage(folder), cwd=folder, code=2)
    assert "threads: must be greater than or equal to 1" in refused.stderr


def test_a_member_is_explained_and_exported(searched):
    folder, result = searched
    member = result["further"][0]["front"][-1]
    words = ("explain", "tiny-2t", "--trial", member["trial"], *storage(folder))
    report = json.loads(run(*words, "--json", cwd=folder).stdout)
    assert report["latency_ms"] == pytest.approx(member["latency_ms"])
    assert "where the time goes on cpu-onnxruntime, 2 threads" in run(*words, cwd=folder).stdout
    words = ("export", "tiny-2t", "--trial", member["trial"], "--out", "best", *storage(folder), "--json")
    exported = json.loads(run(*words, cwd=folder).stdout)
    assert exported["policy_digest"] == member["policy_digest"]


def test_a_further_target_that_is_none_is_found_before_the_search(searched):
    folder, _ = searched
    job = yaml.safe_load((folder / "job.yaml").read_text())
    (folder / "other.yaml").write_text(yaml.safe_dump({**job, "name": "other", "also": [{"table": "none.json"}]}))
    done = run("search", "other.yaml", cwd=folder, code=3)
    assert "no latency table" in done.stderr
    twice = [{"table": "two.json"}, {"table": "two.json", "evaluations": 1}]
    (folder / "other.yaml").write_text(yaml.safe_dump({**job, "name": "other", "also": twice}))
    assert "two of them would be" in run("search", "other.yaml", cwd=folder, code=2).stderr
