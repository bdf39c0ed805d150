"""Our side: members of a front, exported and verified as users export them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.peers.contestant import Contestant, Side
from benchmarks.peers.material import Material
from controller.export import run_export
from controller.results import FrontRow
from workers.export.artifact import ArtifactError
from workers.export.onnx import export_onnx


def spread(front: Sequence[FrontRow], count: int | None) -> list[FrontRow]:
    """Choose members evenly along a front, both ends included; all of them where there are no more.

    Args:
        front: Members by falling latency.
        count: How many, 1 or more; one alone is the most accurate on the search split. None takes all.
    """
    if count is None or len(front) <= count:
        return list(front)
    if count == 1:
        return [max(front, key=lambda row: row.quality)]
    step = (len(front) - 1) / (count - 1)
    return [front[round(number * step)] for number in range(count)]


class Durations:
    """Seconds that steps took, kept in a file, so that a run that finds their results knows them too.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = json.loads(path.read_bytes()) if path.is_file() else {}

    def __contains__(self, step: str) -> bool:
        return step in self._seconds

    def __getitem__(self, step: str) -> float:
        return self._seconds[step]

    def keep(self, step: str, seconds: float) -> None:
        """Note how long a step took."""
        self._seconds[step] = round(seconds, 1)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._seconds), encoding="utf-8")


def export_members(
    study: str, storage: str, rows: Sequence[FrontRow], folder: Path, durations: Durations, *, searched_in_s: float
) -> list[Contestant]:
    """Export members of a study's front; one that its verification refuses is left out.

    Args:
        study: Name of the study.
        storage: URL of its database.
        rows: The members.
        folder: Takes the artifacts; members that are there are not exported again.
        durations: Knows how long those took.
        searched_in_s: Seconds of the search that they share.
    """
    members = []
    for row in rows:
        artifact = folder / f"artifact-{row.trial}"
        if not (row.name in durations and artifact.is_dir()):
            started = time.perf_counter()
            try:
                summary = run_export(study, storage, pick=None, trial=row.trial, out=artifact)
            except ArtifactError as error:
                # What the product would not release does not compete.
                sys.stderr.write(f"ours: {row.name} was refused: {error}\n")
                continue
            durations.keep(row.name, time.perf_counter() - started)
            sys.stderr.write(f"ours: {row.name} exported, {summary.measured_latency_ms:.2f} ms\n")
        members.append(
            Contestant(
                name=f"paretrim {row.name}",
                side=Side.OURS,
                path=artifact / "model.onnx",
                made_in_s=round(searched_in_s + durations[row.name], 1),
                note=f"predicted {row.latency_ms:.3f} ms; quality on the search split {row.quality:.4f}",
            )
        )
    return members


def dense_by_our_export(material: Material) -> Contestant:
    """The dense model as our exporter writes it: what its form of the graph is worth by itself."""
    started = time.perf_counter()
    path = material.folder / "dense-paretrim.onnx"
    task = material.loaded.task
    with torch.no_grad():
        export_onnx(material.loaded.model, task, task.random_inputs(2, 32, seed=0), path)
    return Contestant(
        name="dense, Paretrim's export",
        side=Side.DENSE,
        path=path,
        made_in_s=round(time.perf_counter() - started, 1),
    )
