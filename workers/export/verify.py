"""Proof of an artifact, in a process of its own: it is loaded by its runtime, scored on the holdout and timed.

Run as `python -m workers.export.verify REQUEST.json`; the measurement is written where the request says.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from workers.data import DataConfig
from workers.protocol import Split

if TYPE_CHECKING:
    from evaluators.quality import Outputs, QualityEvaluator
    from workers.targets.onnxruntime_cpu import TimingStats

_ROUNDS = 5
_RUNS_A_ROUND = 40


class VerifyError(RuntimeError):
    """The artifact could not be loaded or run in a process of its own."""


class VerifyRequest(BaseModel):
    """What the verifying process needs.

    Attributes:
        artifact: Folder of the artifact.
        task: Name of the task.
        data: Where the examples come from; absolute paths.
        seed: Seed of the splits.
        splits: Splits that are scored.
        batch: Examples in one call.
        sequence_length: Tokens of an example in the timed call.
        threads: Threads of the runtime.
        measurement: File that the measurement is written to.
        logits: File (npz) with the searched logits by split, and the scores of all examples by "<split>_scores".
        dense: ONNX file of the dense model, timed in turn with the artifact; None leaves that out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: Path
    task: str
    data: DataConfig
    seed: int
    splits: tuple[Split, ...]
    batch: int
    sequence_length: int
    threads: int
    measurement: Path
    logits: Path
    dense: Path | None = None


class SplitMeasurement(BaseModel):
    """What the artifact does on one split, beside what was searched.

    Attributes:
        examples: Examples scored.
        metric: Metric of the artifact, recomputed from its own outputs.
        searched_metric: Metric of the searched model on the same examples.
        max_logit_difference: Largest absolute difference of a logit.
        mean_logit_difference: Mean absolute difference.
        cosine: Cosine of the logits of all examples, taken as one vector: an example next to the decision boundary has
            logits near zero, whose own cosine says nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int
    metric: float
    searched_metric: float
    max_logit_difference: float
    mean_logit_difference: float
    cosine: float


class Measurement(BaseModel):
    """What the verifying process measured.

    Attributes:
        splits: By name of the split.
        latency_ms: Median time of one call of the workload.
        latency_p99_ms: 99th percentile.
        latency_spread_ms: Interquartile range.
        dense_latency_ms: Median time of the dense model, timed in turn with the artifact.
        file_bytes: Size of model.onnx.
        peak_memory_bytes: Largest resident memory of the process.
        runtime: Name and version of the runtime.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    splits: Mapping[str, SplitMeasurement]
    latency_ms: float
    latency_p99_ms: float
    latency_spread_ms: float
    dense_latency_ms: float | None
    file_bytes: int
    peak_memory_bytes: int
    runtime: str


def verify_in_fresh_process(request: VerifyRequest, *, timeout_s: float = 1800) -> Measurement:
    """Start a process that loads the artifact, and read what it measured.

    Raises:
        VerifyError: The process failed or took longer than `timeout_s`; the message ends with its last lines.
    """
    path = request.measurement.with_suffix(".request.json")
    # -P keeps packages in the user's folder from hiding ours.
    path.write_text(request.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "workers.export.verify", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout_s)  # noqa: S603
        return Measurement.model_validate_json(request.measurement.read_text(encoding="utf-8"))
    except subprocess.CalledProcessError as error:
        last = "\n".join(str(error.stderr).strip().splitlines()[-5:])
        raise VerifyError(
            f"the artifact does not run in a process of its own (exit code {error.returncode}):\n{last}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise VerifyError(
            f"the artifact took longer than {timeout_s:g} s to be verified; use fewer examples"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def measure(request: VerifyRequest) -> Measurement:
    """Load the artifact here, score it and time it."""
    import numpy as np
    import onnxruntime
    import torch

    from evaluators.quality import Outputs, QualityEvaluator
    from workers.data import load_splits
    from workers.model import ModelConfig, load_task
    from workers.targets.onnxruntime_cpu import open_session

    torch.set_num_threads(1)
    task = load_task(ModelConfig(id=str(request.artifact), task=request.task))
    splits = load_splits(request.data, task, seed=request.seed)
    path = request.artifact / "model.onnx"
    session = open_session(path, threads=request.threads)
    names = [node.name for node in session.get_inputs()]

    def forward(inputs: Mapping[str, torch.Tensor], examples_per_call: int) -> torch.Tensor:
        rows = len(next(iter(inputs.values())))
        calls = range(0, rows, examples_per_call)
        arrays = {name: inputs[name].numpy() for name in names}
        parts = [
            session.run(None, {name: array[at : at + examples_per_call] for name, array in arrays.items()})[0]
            for at in calls
        ]
        return torch.from_numpy(np.concatenate(parts))

    found = {}
    with np.load(request.logits) as searched:
        for split in request.splits:
            evaluator = QualityEvaluator(task, getattr(splits, split.value), batch=request.batch)
            expected = Outputs(
                per_example_N=torch.from_numpy(searched[f"{split.value}_scores"]),
                logits_MC=torch.from_numpy(searched[split.value]),
                seconds=0.0,
            )
            found[split.value] = _compare(evaluator, expected, evaluator.run(forward))
    inputs = task.random_inputs(request.batch, request.sequence_length, seed=0)
    timing, dense = _time_in_turn(session, {name: inputs[name].numpy() for name in names}, request)
    return Measurement(
        splits=found,
        latency_ms=timing.median_ms,
        latency_p99_ms=timing.p99_ms,
        latency_spread_ms=timing.spread_ms,
        dense_latency_ms=None if dense is None else dense.median_ms,
        file_bytes=path.stat().st_size,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        runtime=f"onnxruntime {onnxruntime.__version__}",
    )


def _time_in_turn(
    session: Any, feeds: Mapping[str, Any], request: VerifyRequest
) -> tuple[TimingStats, TimingStats | None]:
    """Time the artifact, and the dense model in turn with it so that a drift of the clock hits both."""
    import numpy as np

    from workers.targets.onnxruntime_cpu import open_session, summarise, time_runs

    sessions = [session]
    if request.dense is not None:
        sessions.append(open_session(request.dense, threads=request.threads))
    times: list[list[Any]] = [[] for _ in sessions]
    for _ in range(_ROUNDS):
        for place, timed in enumerate(sessions):
            times[place].append(time_runs(timed, feeds, runs=_RUNS_A_ROUND))
    stats = [summarise(np.concatenate(parts)) for parts in times]
    return stats[0], stats[1] if len(stats) > 1 else None


def _compare(evaluator: QualityEvaluator, searched: Outputs, exported: Outputs) -> SplitMeasurement:
    import torch

    searched_NC, exported_NC = searched.logits_MC, exported.logits_MC
    difference_NC = (searched_NC - exported_NC).abs()
    cosine = torch.nn.functional.cosine_similarity(searched_NC.flatten(), exported_NC.flatten(), dim=0)
    return SplitMeasurement(
        examples=len(exported.per_example_N),
        metric=evaluator.score(exported).value,
        searched_metric=evaluator.score(searched).value,
        max_logit_difference=float(difference_NC.max()),
        mean_logit_difference=float(difference_NC.mean()),
        cosine=float(cosine),
    )


def main(path: str) -> None:
    """Measure what the request file asks for."""
    request = VerifyRequest.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    request.measurement.write_text(measure(request).model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
