"""The tutorial, typed line by line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
SHORTER = {
    "keep: [1.0, 0.75, 0.5, 0.25, 0.0]": "keep: [1.0, 0.5]",
    "formats: [fp32, w8a8, w4]": "formats: [fp32, w8a8]",
    "trials: 60": "trials: 6",
    "parallel: 2": "parallel: 1",
}
"""Less to measure, to compress and to score than people are told to wait for."""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tutorial_does_what_it_says(tmp_path):
    text = TUTORIAL.read_text()
    lines = [
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    lines += [f"python -c {_quoted(block)}" for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    assert len(lines) >= 10
    examples = tmp_path / "examples"
    examples.mkdir()
    for name in ("__init__.py", "digits.py"):
        shutil.copy(ROOT / "examples" / name, examples)
    job = (ROOT / "examples" / "digits.yaml").read_text()
    for long, short in SHORTER.items():
        assert job.count(long) == 1
        job = job.replace(long, short)
    (examples / "digits.yaml").write_text(job)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(f"echo '$ line {n}'\n{line}" for n, line in enumerate(lines))],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for told in (
        "digits: 12 units of vit",
        "digits: front",
        "beside it: dense and uniform policies",
        "picked ",
        "verified: ",
    ):
        assert told in text
        assert told in done.stdout
    assert (tmp_path / "digits" / "best" / "model.onnx").exists()
    assert (tmp_path / "digits" / ".paretrim" / "reports" / "digits" / "front.html").exists()


def _quoted(block):
    return "'" + block.replace("'", "'\\''") + "'"
