"""Fault 34: SIGTERM in mid-search: it drains, saves, prints the command to go on, and ends with a code of its own.

How a search under Ctrl-C finishes what is at work is in `test_07_controller_killed.py`.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = str(Path(sys.executable).with_name("paretrim"))


@pytest.mark.slow
def test_a_terminated_command_says_how_to_go_on(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tiny: Any = request.getfixturevalue("tiny_image")
    storage = f"sqlite:///{tmp_path}/paretrim.db"
    job = {
        "name": "tiny",
        "model": {"id": tiny.model.id, "task": tiny.model.task},
        "data": tiny.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.75, 0.5, 0.25, 0.0], "formats": ["fp32", "w8a8"]},
        "target": {"table": str(tiny.table), "threads": 1},
        "search": {"sampler": "random", "trials": 3000, "parallel": 1},
        "storage": storage,
        "mlflow": {"enabled": False},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    command = [PROGRAM, "search", str(path)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "searching" in line and " 0/" not in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(120) == 130, rest
    assert f"to go on: paretrim search {path}" in rest
    shown = subprocess.run(
        [PROGRAM, "front", "tiny", "--json", "--storage", storage], capture_output=True, text=True, check=True
    )
    assert 0 < json.loads(shown.stdout)["trials_done"] < 3000
