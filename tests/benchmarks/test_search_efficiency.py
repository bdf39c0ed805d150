"""The comparison of samplers, in its small version."""

import json
import subprocess
import sys

import pytest

from benchmarks.recording import RESULTS


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_frontier_is_ahead_of_every_stock_sampler_in_a_small_run() -> None:
    kept = {file: file.stat().st_mtime_ns for file in RESULTS.iterdir()}
    command = [sys.executable, "-m", "benchmarks.search_efficiency", "--model", "digits", "--quick"]

    done = subprocess.run(command, cwd=RESULTS.parents[1], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["model"] == "digits"
    assert figures["ahead"]
    assert figures["ratio"] > 1.5
    assert {file: file.stat().st_mtime_ns for file in RESULTS.iterdir()} == kept, "a small run replaced a whole one's"
