"""Peers whose packages do not go with ours: each in a virtual environment and a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.peers.contestant import Absent, Contestant, Side
from benchmarks.peers.material import Material, write_examples

_DRIVERS = Path(__file__).with_name("drivers")
_LIMIT_S = 3600
_LINES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolated:
    """A peer in an environment of its own.

    Attributes:
        name: Name for people.
        driver: Script in `drivers/` that makes its models; its pinned packages are in a .txt of the same name.
    """

    name: str
    driver: str


ISOLATED = (
    Isolated(name="model-optimizer", driver="model_optimizer"),
    Isolated(name="olive", driver="olive_search"),
    Isolated(name="neural-compressor", driver="neural_compressor_tuning"),
)


class PeerError(RuntimeError):
    """A peer can't be installed, or its driver failed; the message holds the end of what it said."""


class Made(BaseModel):
    """A model that a driver made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name for people."""
    file: str
    """Name of the ONNX file in the folder that the driver was given."""
    made_in_s: float
    """Seconds that its making took."""
    note: str = ""
    """What else there is to say."""


class Answer(BaseModel):
    """What a driver writes when it is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[Made, ...] = ()
    """What it made."""
    reason: str = ""
    """Why there is nothing, where there is not."""


def run_isolated(peer: Isolated, material: Material, *, environments: Path) -> list[Contestant | Absent]:
    """Let a peer make its models.

    Args:
        peer: The peer.
        material: What it starts from.
        environments: Folder of the virtual environments; the peer's is made where it is missing.

    Returns:
        Its models; or, alone, why there are none.
    """
    folder = material.folder / peer.driver
    folder.mkdir(exist_ok=True)
    try:
        python = ensure_environment(environments / peer.driver, _DRIVERS / f"{peer.driver}.txt")
        answer = run_driver(python, _DRIVERS / f"{peer.driver}.py", _request(material, folder), folder)
    except PeerError as error:
        return [Absent(name=peer.name, reason=str(error))]
    if not answer.models:
        return [Absent(name=peer.name, reason=answer.reason)]
    return [
        Contestant(
            name=f"{peer.name} {each.name}",
            side=Side.PEER,
            path=folder / each.file,
            made_in_s=each.made_in_s,
            note=each.note,
        )
        for each in answer.models
    ]


def ensure_environment(folder: Path, pins: Path) -> Path:
    """Make a virtual environment from pinned packages, or take the one that is there if the pins are the same.

    Args:
        folder: Where it is.
        pins: Requirements file.

    Returns:
        Its Python.

    Raises:
        PeerError: The packages can't be installed.
    """
    python = folder.absolute() / "bin" / "python"
    stamp = folder / "pins.sha256"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(pins)])
    stamp.write_text(digest, encoding="utf-8")
    return python


def run_driver(python: Path, script: Path, request: dict[str, Any], folder: Path) -> Answer:
    """Run a driver: it gets the path of a request and writes `answer.json` beside it; an answer to the same is read.

    Args:
        python: Interpreter.
        script: The driver.
        request: What it is to know.
        folder: Takes request, answer and models.

    Raises:
        PeerError: It failed, or took too long, or its answer can't be read or names files that are not there.
    """
    request_file, answer_file, asked = folder / "request.json", folder / "answer.json", json.dumps(request)
    if not (answer_file.is_file() and request_file.read_text(encoding="utf-8") == asked):
        answer_file.unlink(missing_ok=True)
        request_file.write_text(asked, encoding="utf-8")
        _run([str(python), str(script), str(request_file)], cwd=folder)
    try:
        answer = Answer.model_validate_json(answer_file.read_bytes())
    except (OSError, ValidationError) as error:
        raise PeerError(f"{script.name} ended without an answer that can be read: {error}") from error
    missing = [each.file for each in answer.models if not (folder / each.file).is_file()]
    if missing:
        raise PeerError(f"{script.name} names models that it did not write: {', '.join(missing)}")
    return answer


def _request(material: Material, folder: Path) -> dict[str, Any]:
    examples = {"calibration": material.splits.calibration, "search": material.splits.search}
    for name, split in examples.items():
        write_examples(split, folder / f"{name}.jsonl")
    return {
        "model": str(Path(material.job.model.id).absolute()),
        "stock": str(material.stock.absolute()),
        "folder": str(folder.absolute()),
        "threads": material.job.target.threads,
        "max_length": material.job.data.max_length,
        **{name: str((folder / f"{name}.jsonl").absolute()) for name in examples},
    }


def _run(command: Sequence[str], *, cwd: Path | None = None) -> None:
    """Run a command; what it says is shown only where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{' '.join(command)} took more than {_LIMIT_S} s") from error
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PeerError(f"{' '.join(command)} failed: {' | '.join(said[-_LINES_SHOWN:])}")
