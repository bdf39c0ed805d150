"""The example for Python does what it says, from a model's folder to a verified export."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import TinyJob

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_and_an_export_from_python(tiny_text: "TinyJob", tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.from_python", tiny_text.model.id, tiny_text.data.source, "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "accuracy" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("verified: accuracy ")
    assert (tmp_path / "out" / "model.onnx").exists()


def test_the_example_is_short() -> None:
    lines = [line for line in (ROOT / "examples" / "from_python.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 25
