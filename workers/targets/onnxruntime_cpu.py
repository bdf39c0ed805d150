"""ONNX Runtime on this machine's CPU: fingerprint, sessions, and the times of operators and of whole models."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluators.latency.workload import Operator, Workload
from workers.targets.base import ONNX_FILE
from workers.targets.copies import copies_of, displaced_by, share_of_copies
from workers.targets.cpu import CpuDevice
from workers.targets.quiet import QuietMoments, quiet_moments
from workers.targets.timing import MODEL_SECONDS, SAMPLE_SECONDS, time_calls
from workers.targets.undisturbed import undisturbed_ms

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor, nn

    from evaluators.tasks import Task


def open_session(model: bytes | str | Path, *, threads: int, operator_only: bool = False) -> Any:
    """Open an inference session as a deployed model is run: sequential executor, pinned number of threads.

    Args:
        model: Serialised model or its path.
        threads: Threads of one operator.
        operator_only: Keep equal nodes apart, which a graph of copies needs; a model is run with all optimisations.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else os.fspath(model),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["CommonSubexpressionElimination"] if operator_only else None,
    )


def time_runs(
    session: Any,
    feeds: Mapping[str, "npt.NDArray[Any]"],
    *,
    runs: int,
    limit_s: float = MODEL_SECONDS,
    displaced_bytes: int = 0,
    quiet: QuietMoments | None = None,
) -> "npt.NDArray[np.float64]":
    """Time a session, inputs and outputs bound beforehand.

    Args:
        session: Open inference session.
        feeds: Inputs by name.
        runs: Timed runs after the warm-up.
        limit_s: After this time no further run starts, once there are three.
        displaced_bytes: Other data that is read before each run, outside the measured time, and displaces the weights
            from caches of that size.
        quiet: Waits for quiet moments; see `time_calls`.

    Returns:
        Milliseconds of each run; see `time_calls`.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(value))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return time_calls(
        lambda: session.run_with_iobinding(binding),
        runs=runs,
        limit_s=limit_s,
        displaced_bytes=displaced_bytes,
        quiet=quiet,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """A whole model that is timed in a fresh session each time.

    Attributes:
        model: Serialised model or its path.
        feeds: Inputs by name.
        threads: Threads of the runtime.
    """

    model: bytes | Path
    feeds: Mapping[str, "npt.NDArray[Any]"]
    threads: int

    def sample(self, *, runs: int) -> tuple[float, ...]:
        """Time the model; see `TimedModel.sample`."""
        session = open_session(self.model, threads=self.threads)
        return tuple(time_runs(session, self.feeds, runs=runs, quiet=quiet_moments()).tolist())


class OnnxArtifact:
    """An exported file in a session; see `RunningModel`.

    Args:
        folder: Folder that holds the file.
        threads: Threads of the runtime.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        path = folder / ONNX_FILE
        self.session = open_session(path, threads=threads)
        self.names = tuple(node.name for node in self.session.get_inputs())
        self.runtime = f"onnxruntime {version('onnxruntime')}"
        self.files: tuple[Path, ...] = (path,)

    def logits(self, inputs: "Mapping[str, Tensor]") -> "Tensor":
        """Run one call."""
        import torch

        return torch.from_numpy(self.session.run(None, self._feeds(inputs))[0])

    def time(self, inputs: "Mapping[str, Tensor]", *, runs: int, quiet: bool = False) -> tuple[float, ...]:
        """Time calls, inputs and outputs bound beforehand."""
        moments = quiet_moments() if quiet else None
        return tuple(time_runs(self.session, self._feeds(inputs), runs=runs, quiet=moments).tolist())

    def _feeds(self, inputs: "Mapping[str, Tensor]") -> "dict[str, npt.NDArray[Any]]":
        return {name: inputs[name].numpy() for name in self.names}


class OnnxRuntimeCpu(CpuDevice):
    """Times operators with ONNX Runtime.

    An operator stands in its graph several times, side by side, so that the cost of a call is spread and the weights
    come from memory as in a model; the time of a call that does nothing is taken off.

    Args:
        threads: Threads of the runtime.
    """

    runtime, package = "onnxruntime", "onnxruntime"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._calls_ms: dict[int, list[float]] = {}

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> tuple[float, ...]:
        """Time an operator in a fresh session; see `Device.sample`."""
        copies = copies_of(operator, working_set_bytes, fill=True)
        displaced_bytes = displaced_by(operator, copies, working_set_bytes)
        call_ms = self._call_ms(runs, seed, displaced_bytes)
        times_ms = self._time(operator, copies, runs, seed, displaced_bytes)
        return share_of_copies(times_ms, call_ms, copies)

    def whole_model(self, model: "nn.Module", task: "Task", workload: Workload, folder: Path) -> "OnnxModel":
        """Export a model to an ONNX file; see `Device.whole_model`."""
        from workers.export.onnx import export_onnx

        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        export_onnx(model, task, task.random_inputs(2, workload.sequence_length, seed=0), path)
        feeds = task.random_inputs(workload.batch, workload.sequence_length, seed=1)
        return OnnxModel(model=path, feeds={name: x.numpy() for name, x in feeds.items()}, threads=self.threads)

    def open(self, folder: Path) -> OnnxArtifact:
        """Open the exported file of a folder; see `Device.open`."""
        return OnnxArtifact(folder, self.threads)

    def _call_ms(self, runs: int, seed: int, displaced_bytes: int) -> float:
        """Time of a call that does nothing: an undisturbed one, as it is taken off undisturbed times."""
        found = self._calls_ms.setdefault(displaced_bytes, [])
        found.extend(self._time(None, 0, runs, seed, displaced_bytes).tolist())
        return undisturbed_ms(found)

    def _time(
        self, operator: Operator | None, copies: int, runs: int, seed: int, displaced_bytes: int
    ) -> "npt.NDArray[np.float64]":
        from workers.targets.onnxruntime_graphs import build_graph

        model, feeds = build_graph(operator, copies=copies, seed=seed)
        session = open_session(model, threads=self.threads, operator_only=True)
        return time_runs(
            session,
            feeds,
            runs=runs,
            limit_s=SAMPLE_SECONDS,
            displaced_bytes=displaced_bytes,
            quiet=quiet_moments(),
        )
