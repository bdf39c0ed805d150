"""Traces of the Fisher information, computed once for a model and its data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from controller.safe_writing import write_whole
from evaluators.quality import stack_calls
from workers.curvature import fisher_traces
from workers.model import load_model
from workers.trial import TrialWorker

SCHEMA_VERSION = 1

Traces = dict[str, tuple[float, int]]
"""Trace and number of weights, by unit."""


def fisher_of(
    folder: Path, evaluation_digest: str, worker: TrialWorker | None, on_stage: Callable[[str], None]
) -> Traces:
    """Return the traces as far as they are known, and compute them where a worker is given.

    Args:
        folder: Where whatever belongs to a database is kept.
        evaluation_digest: Identity of model and data.
        worker: Has model and data; None takes only what was computed before.
        on_stage: Told what is going on.
    """
    path = folder / "fisher" / f"{evaluation_digest}.json"
    known = _read(path)
    if known or worker is None:
        return known
    on_stage("computing the Fisher information")
    calls = stack_calls(worker.task, worker.splits.calibration, batch=worker.spec.target.batch)
    found = fisher_traces(load_model(worker.spec.model).model, worker.structure.units, calls, seed=worker.spec.seed)
    traces = {name: (curvature.trace, curvature.weights) for name, curvature in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps({"schema_version": SCHEMA_VERSION, "traces": traces}) + "\n").encode())
    return traces


def _read(path: Path) -> Traces:
    """Read a file that this module wrote; one of another schema or a spoilt one counts as missing."""
    try:
        content = json.loads(path.read_text())
        if content["schema_version"] != SCHEMA_VERSION:
            return {}
        return {name: (float(trace), int(weights)) for name, (trace, weights) in content["traces"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
