"""Examples are valid jobs, and the demonstration does what the README says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller.job_file import load_job

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_a_valid_job_named_like_its_file(path):
    assert load_job(path).name.replace("-", "_") == path.stem


@pytest.mark.skipif(
    not (ROOT.parent / "shared" / "models").exists(), reason="the models beside the repository are absent"
)
def test_minilm_example_fits_its_model_and_data():
    from controller.planning import plan
    from controller.preparation import describe
    from workers.trial import check_data

    job = load_job(ROOT / "examples" / "minilm_sst2.yaml")
    found = plan(job)
    assert len(found.units) == 13
    assert found.constraints_reachable
    check_data(describe(job).spec)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demonstration_ends_with_a_registered_and_verified_model_that_answers(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=tmp_path,
        # What a shell names for other work is left alone.
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'other.db'}"},
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    accuracy = next(line for line in done.stdout.splitlines() if "training did not see" in line)
    assert float(accuracy.rsplit(" ", 1)[1]) >= 0.95
    report = json.loads((tmp_path / "paretrim-demo" / "best" / "report.json").read_text())
    assert abs(report["metric_gap"]) <= report["metric_tolerance"]
    assert report["latency_measured_ms"] < report["dense_latency_measured_ms"]
    answer = re.search(r"asked for a (\d), the registered model answers LABEL_(\d), sure to 0\.\d+", done.stdout)
    assert answer is not None
    assert answer[1] == answer[2]
    assert "mlflow models serve -m models:/digits@champion --env-manager local" in done.stdout
    assert "curl -H 'Content-Type: application/json' -d @paretrim-demo/request.json" in done.stdout
