"""Fault 26: no trial meets the constraints. That has a code of its own, and the closest policies are shown."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.exit_codes import ExitCode

PROGRAM = str(Path(sys.executable).with_name("paretrim"))


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_the_closest_policies_are_shown(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tiny: Any = request.getfixturevalue("tiny_text")
    job = {
        "name": "tiny",
        "model": {"id": tiny.model.id, "task": tiny.model.task},
        "data": tiny.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.0], "formats": ["fp32"]},
        "target": {"table": str(tiny.table), "threads": 1, "sequence_length": tiny.sequence_length},
        "search": {"sampler": "random", "trials": 4},
        "storage": f"sqlite:///{tmp_path}/paretrim.db",
        "mlflow": {"enabled": False},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    plan = json.loads(run("validate", str(path), "--json", folder=tmp_path).stdout)
    # Only the model without any block is that fast, and it knows nothing.
    job["constraints"] = {"max_latency_ms": 1.01 * plan["min_latency_ms"], "max_quality_drop": 0.001}
    path.write_text(yaml.safe_dump(job))
    done = run("search", str(path), folder=tmp_path)
    assert done.returncode == ExitCode.NO_FEASIBLE_TRIAL, done.stderr
    assert "no policy meets the constraints" in done.stderr
    assert "widen the constraints" in done.stderr
    assert "closest to the constraints" in done.stdout
    again = run("front", "tiny", "--json", "--storage", str(job["storage"]), folder=tmp_path)
    result = json.loads(again.stdout)
    assert result["front"] == []
    assert result["least_violating"]
    assert not any(row["feasible"] for row in result["least_violating"])
