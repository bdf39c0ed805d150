"""PyTorch on an NVIDIA GPU: operators and whole models as replayed CUDA graphs, timed by events on the device."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluators.energy import work_of
from evaluators.latency.table import Fingerprint
from evaluators.latency.workload import Operator, Workload
from workers.targets.copies import MAX_COPIES, weight_bytes
from workers.targets.cpu import system_name
from workers.targets.device import KernelError
from workers.targets.energy_meters import NvmlMeter, gpu_meter
from workers.targets.timing import WARM_UP_RUNS

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import nn

    from evaluators.tasks import Task

NO_DEVICE = "no CUDA device"
LEAST_CAPABILITY = {
    "fp32": (5, 0),
    "w8": (5, 0),
    "fp16": (5, 3),
    "bf16": (8, 0),
    "w8a8r": (8, 0),
    "w4a16": (8, 0),
    "fp8": (8, 9),
}
"""Format to the compute capability from which torch has a kernel that computes in it."""
MAX_WEIGHT_BYTES = 2**28
"""Weights of all copies of an operator together, about."""
COPIES_MULTIPLICATIONS = 2 * 10**10
"""Multiplications of all copies together, about: beyond this a launch no longer matters."""
MAX_DISPLACED_BYTES = 2**28
"""More than this is out of every GPU's cache."""


def cuda_obstacle() -> str | None:
    """Return why torch can't time anything on a GPU here; None where it can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a build with it"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device (no GPU, no driver, or CUDA_VISIBLE_DEVICES hides it)"
    return None


def formats_of(capability: tuple[int, int]) -> tuple[str, ...]:
    """Formats that have kernels on GPUs of a compute capability, sorted by name.

    Args:
        capability: Major and minor number, as (9, 0).
    """
    return tuple(sorted(name for name, least in LEAST_CAPABILITY.items() if capability >= least))


def check_format(operator: Operator, capability: tuple[int, int]) -> None:
    """Refuse an operator whose format has no kernel on GPUs of a compute capability.

    Raises:
        KernelError: It has none.
    """
    known = formats_of(capability)
    if operator.format is not None and operator.format not in known:
        raise KernelError(
            f"a GPU of compute capability {capability[0]}.{capability[1]} has kernels for {', '.join(known)}; got "
            f"{operator}; set space.formats to some of these"
        )


def copies_on_gpu(operator: Operator) -> int:
    """How many copies of an operator stand in its graph: enough for its launch not to count, as memory allows."""
    copies = min(MAX_COPIES, COPIES_MULTIPLICATIONS // max(1, work_of(operator).multiply_adds))
    weight = weight_bytes(operator)
    return max(2, copies if weight == 0 else min(copies, MAX_WEIGHT_BYTES // weight))


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaGraphModel:
    """A whole model as a CUDA graph.

    Attributes:
        model: The model with its kernels.
        inputs: Its inputs by name, on the GPU.
        stays: Whether the model stays on the GPU between samples; of many in turn only one need fit.
    """

    model: nn.Module
    inputs: Mapping[str, torch.Tensor]
    stays: bool = True

    def sample(self, *, runs: int) -> tuple[float, ...]:
        """Record the model afresh and time replays of it; see `TimedModel.sample`."""
        self.model.to(_device())
        try:
            times_ms = _replay(_record(lambda: self.model(**self.inputs)), runs=runs, displaced_bytes=0)
        finally:
            if not self.stays:
                self.model.to("cpu")
        return tuple(times_ms.tolist())


class TorchCudaArtifact:
    """An exported folder on the first GPU; see `RunningModel`.

    Args:
        folder: What `export_huggingface` wrote.
    """

    def __init__(self, folder: Path) -> None:
        from workers.export.loading import load_folder, weights_file
        from workers.export.torch_cuda_layers import CUDA_FORMS
        from workers.export.torch_layers import torch_form

        self._device = _device()
        self._model = torch_form(load_folder(folder), CUDA_FORMS, self._device)
        self.runtime = f"torch {version('torch')}"
        self.files: tuple[Path, ...] = (weights_file(folder),)

    def logits(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Run one call operator by operator: its shape may be new."""
        import torch

        with torch.inference_mode():
            found: torch.Tensor = self._model(**self._here(inputs)).logits
        return found.cpu()

    def time(self, inputs: Mapping[str, torch.Tensor], *, runs: int, quiet: bool = False) -> tuple[float, ...]:
        """Time replays of a graph of the call; the GPU is taken to be this process's own, so always quiet."""
        return CudaGraphModel(model=self._model, inputs=self._here(inputs)).sample(runs=runs)

    def _here(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}


class TorchCuda:
    """Times operators on the first GPU.

    Copies of an operator, each with weights of its own, are recorded into one CUDA graph; what an empty graph takes is
    taken off.

    Args:
        threads: Threads of the host; they launch graphs and do nothing else.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the first GPU; without one, a fingerprint that no table matches."""
        import torch

        found = torch.cuda.is_available()
        return Fingerprint(
            device=torch.cuda.get_device_name(0) if found else NO_DEVICE,
            flags=("sm_{}{}".format(*torch.cuda.get_device_capability(0)),) if found else (),
            driver=_query("driver_version") if found else None,
            runtime=f"torch cuda {torch.version.cuda}",
            runtime_version=version("torch"),
            threads=self.threads,
            os=system_name(),
        )

    def clocks(self) -> str | None:
        """Return the clocks of the GPU and of its memory where the driver's tool tells them."""
        found = _query("clocks.sm,clocks.mem")
        return None if found is None else "SM {}, memory {}".format(*(part.strip() for part in found.split(",")))

    def energy_meter(self) -> NvmlMeter | None:
        """Return the counter of the first GPU; see `gpu_meter`."""
        import torch

        uuid = _uuid()
        return None if uuid is None else gpu_meter(uuid, torch.cuda.get_device_name(0))

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> tuple[float, ...]:
        """Time an operator in a graph of its own; see `Device.sample`."""
        import torch

        from workers.export.torch_cuda_layers import CUDA_FORMS
        from workers.targets.torch_operators import build_calls

        device = _device()
        check_format(operator, torch.cuda.get_device_capability(device))
        copies = copies_on_gpu(operator)
        displaced_bytes = min(working_set_bytes, MAX_DISPLACED_BYTES) if weight_bytes(operator) else 0
        with torch.inference_mode():
            tick = torch.zeros(1, device=device)
            empty_ms = _replay(_record(lambda: tick.add_(1)), runs=runs, displaced_bytes=displaced_bytes)
            calls = build_calls(operator, copies=copies, seed=seed, device=device, forms=CUDA_FORMS)
            times_ms = _replay(_record(partial(_run_all, calls)), runs=runs, displaced_bytes=displaced_bytes)
        left_ms = np.maximum(times_ms - float(np.median(empty_ms)), 0.05 * times_ms)
        return tuple((left_ms / copies).tolist())

    def whole_model(self, model: nn.Module, task: Task, workload: Workload, folder: Path) -> CudaGraphModel:
        """Copy a model with its kernels; see `Device.whole_model`. Nothing is written.

        It waits in the host's memory, so that a dozen models of a size that fits the GPU once can be timed in turn.
        """
        from workers.export.torch_cuda_layers import CUDA_FORMS
        from workers.export.torch_layers import torch_form

        device = _device()
        found = torch_form(model, CUDA_FORMS, device)
        drawn = task.random_inputs(workload.batch, workload.sequence_length, seed=1)
        inputs = {name: tensor.to(device) for name, tensor in drawn.items()}
        return CudaGraphModel(model=found.to("cpu"), inputs=inputs, stays=False)

    def open(self, folder: Path) -> TorchCudaArtifact:
        """Read an exported folder; see `Device.open`."""
        return TorchCudaArtifact(folder)


def _device() -> torch.device:
    import torch

    if (reason := cuda_obstacle()) is not None:
        raise KernelError(f"cuda-torch needs a GPU; {reason}; plan with a table from elsewhere, or take another target")
    return torch.device("cuda", 0)


def _record(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Record a call into a graph, once it is warm.

    Raises:
        KernelError: The call waits for the GPU, which nothing recorded can do.
    """
    import torch

    with torch.inference_mode():
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_RUNS):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise KernelError(
                "cuda-torch records a model into a CUDA graph, so that no operator may read a value back from the GPU "
                f"(.item(), control flow by data, shapes by data); recording failed: {error}; take such parts out of "
                "the model's forward, or search for another target"
            ) from error
    return graph


def _run_all(calls: Sequence[Callable[[], object]]) -> None:
    """Run calls one after the other; what one returned is free for the next, as in a model."""
    for call in calls:
        call()


def _replay(graph: torch.cuda.CUDAGraph, *, runs: int, displaced_bytes: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each replay, (runs,); before each one so many bytes are written that displace the weights."""
    import torch

    displaced = torch.empty(displaced_bytes, dtype=torch.uint8, device="cuda")
    mark = partial(torch.cuda.Event, enable_timing=True)
    marks = [(mark(), mark()) for _ in range(WARM_UP_RUNS + runs)]
    for start, end in marks:
        displaced.zero_()
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return np.array([start.elapsed_time(end) for start, end in marks[WARM_UP_RUNS:]])


def _query(fields: str) -> str | None:
    """What the driver's tool says of torch's first GPU; None where there is no such tool."""
    tool, uuid = shutil.which("nvidia-smi"), _uuid()
    if tool is None or uuid is None:
        return None
    command = [tool, f"--query-gpu={fields}", "--format=csv,noheader", f"--id={uuid}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _uuid() -> str | None:
    """Identity of torch's first GPU; the driver's tools count GPUs in another order, hidden ones too."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(0).uuid}" if torch.cuda.is_available() else None
