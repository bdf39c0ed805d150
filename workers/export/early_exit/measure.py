"""What an artifact with an early exit does on real examples: who leaves, and the time that this saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from workers.export.early_exit.branch import LEFT_EARLY
from workers.export.early_exit.record import ExitMeasurement
from workers.targets.base import ONNX_FILE
from workers.targets.device import RunningModel

if TYPE_CHECKING:
    from evaluators.tasks import Example, Task

TIMED_EXAMPLES = 256
"""At most so many examples are timed."""
_RUNS = 5


def measure_exit(
    models: Sequence[RunningModel], artifact: Path, task: Task, splits: Mapping[str, Sequence[Example]], *, threads: int
) -> ExitMeasurement:
    """Count who leaves, and time each model on the same examples in turn, so that a drift of the clock hits all.

    Args:
        models: The artifact, the model without the exit, and the dense model.
        artifact: Folder of the artifact.
        task: Collates examples.
        splits: Examples by split; those of the last are timed.
        threads: Threads of the runtime.
    """
    timed = list(splits.values())[-1][:TIMED_EXAMPLES]
    times_ms: list[list[float]] = [[] for _ in models]
    for example in timed:
        inputs = task.collate([example])
        for place, model in enumerate(models):
            times_ms[place].append(median(model.time(inputs, runs=_RUNS)))
    mean_ms, whole_mean_ms, dense_mean_ms = map(fmean, times_ms)
    return ExitMeasurement(
        shares={name: _share(artifact, task, examples, threads) for name, examples in splits.items()},
        examples=len(timed),
        mean_ms=mean_ms,
        whole_mean_ms=whole_mean_ms,
        dense_mean_ms=dense_mean_ms,
    )


def _share(artifact: Path, task: Task, examples: Sequence[Example], threads: int) -> float:
    from workers.targets.onnxruntime_cpu import open_session

    session = open_session(artifact / ONNX_FILE, threads=threads)
    names = [node.name for node in session.get_inputs()]
    left = 0
    for example in examples:
        inputs = task.collate([example])
        (left_early,) = session.run([LEFT_EARLY], {name: inputs[name].numpy() for name in names})
        left += bool(left_early)
    return left / len(examples)
