"""How soon the program answers: what it imports, and its time beside that of an empty program."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

HEAVY = ("torch", "transformers", "ray", "mlflow", "optuna", "sqlalchemy", "datasets", "onnxruntime", "plotly", "scipy")
MAIN = "from controller.cli import main; main()"
JOB = "name: demo\nmodel: {id: org/model}\ndata: {source: org/data}\nsearch: {trials: 0}\n"
BARE = "import typer.main, pydantic, rich.table, yaml"


@pytest.fixture
def job_file(tiny_text: Any, tmp_path: Path) -> str:
    """A job of a real model, without a latency table."""
    content = {
        "name": "demo",
        "model": {"id": tiny_text.model.id},
        "data": tiny_text.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.5], "formats": ["fp32", "w8a8"]},
        "target": {"sequence_length": 16},
        "storage": f"sqlite:///{tmp_path}/paretrim.db",
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def least_seconds(*arguments: str) -> float:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - started

    return min(once() for _ in range(3))


def test_help_and_validate_are_fast_next_to_an_empty_program(job_file: str) -> None:
    # An absolute bound would measure the machine. torch alone takes more than a hundred empty programs.
    empty, bare = least_seconds("-c", "pass"), least_seconds("-c", BARE)
    assert least_seconds("-c", MAIN, "--help") < 4 * bare + 10 * empty
    assert least_seconds("-c", MAIN, "validate", job_file) < 6 * bare + 20 * empty


def test_help_and_validate_import_nothing_heavy(job_file: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(JOB)
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))\n{MAIN}"
    )
    for arguments in (["--help"], ["validate", job_file], ["validate", str(bad)], ["schema"], ["front", "../x"]):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert done.stderr.strip().endswith("[]"), (arguments, done.stderr)
