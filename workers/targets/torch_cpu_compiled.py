"""PyTorch on this machine's CPU, compiled by torch.compile: the times of operators and of whole models."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.latency.workload import Operator, Workload
from workers.targets.copies import copies_of, displaced_by, share_of_copies
from workers.targets.cpu import CpuDevice
from workers.targets.quiet import quiet_moments
from workers.targets.timing import MODEL_SECONDS, SAMPLE_SECONDS, time_calls
from workers.targets.torch_threads import torch_inference
from workers.targets.undisturbed import undisturbed_ms

if TYPE_CHECKING:
    import numpy.typing as npt
    from numpy import float64
    from torch import Tensor, nn

    from evaluators.tasks import Task

MAX_COMPILED = 128
"""Operators whose compiled code is kept for later rounds; it holds no weights. The profiler measures 32 at a time."""
Shape = tuple[tuple[str, tuple[int, ...], str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledModel:
    """A whole model that is compiled for each shape of inputs that it is timed with.

    Attributes:
        model: The model, with real kernels that can be traced.
        threads: Threads of the runtime.
    """

    model: nn.Module
    threads: int
    _by_shape: dict[Shape, Callable[[nn.Module, Mapping[str, Tensor]], Tensor]] = field(
        default_factory=dict, init=False
    )

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run one call: compiled for the shape of the first call and those that were timed, else by the same layers."""
        from workers.targets.torch_compiling import logits_of

        if self._by_shape and _shape(inputs) not in self._by_shape:
            with torch_inference(self.threads):
                return logits_of(self.model, inputs)
        run = self._compiled(inputs)
        with torch_inference(self.threads):
            return run(self.model, inputs)

    def time(self, inputs: Mapping[str, Tensor], *, runs: int, quiet: bool) -> tuple[float, ...]:
        """Time the compiled model; `quiet` waits for quiet moments (see `time_calls`)."""
        run = self._compiled(inputs)
        moments = quiet_moments() if quiet else None
        with torch_inference(self.threads):
            times_ms = time_calls(lambda: run(self.model, inputs), runs=runs, limit_s=MODEL_SECONDS, quiet=moments)
        return tuple(times_ms.tolist())

    def _compiled(self, inputs: Mapping[str, Tensor]) -> Callable[[nn.Module, Mapping[str, Tensor]], Tensor]:
        from workers.targets.torch_compiling import compile_model

        key = _shape(inputs)
        if key not in self._by_shape:
            with torch_inference(self.threads):
                self._by_shape[key] = compile_model(self.model, inputs)
        return self._by_shape[key]


def _shape(inputs: Mapping[str, Tensor]) -> Shape:
    return tuple((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in inputs.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSample:
    """A whole model with inputs of a workload; see `TimedModel`.

    Attributes:
        model: The model. It is compiled once: its code does not depend on the sample.
        inputs: Its inputs by name.
    """

    model: CompiledModel
    inputs: Mapping[str, Tensor]

    def sample(self, *, runs: int) -> tuple[float, ...]:
        """Time the model; see `TimedModel.sample`."""
        return self.model.time(self.inputs, runs=runs, quiet=True)


class TorchCompiledArtifact:
    """An exported folder, compiled for the shape that it is called with first and those that it is timed with.

    Calls of other shapes run operator by operator through the same layers, as verification may ask for many shapes; see
    `RunningModel`.

    Args:
        folder: What `export_huggingface` wrote.
        threads: Threads of the runtime.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        from workers.export.loading import load_folder, weights_file

        self._model = CompiledModel(model=_traced(load_folder(folder)), threads=threads)
        self.runtime = f"torch {version('torch')}, compiled"
        self.files: tuple[Path, ...] = (weights_file(folder),)

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run one call."""
        return self._model.logits(inputs)

    def time(self, inputs: Mapping[str, Tensor], *, runs: int, quiet: bool = False) -> tuple[float, ...]:
        """Time calls."""
        return self._model.time(inputs, runs=runs, quiet=quiet)


class TorchCpuCompiled(CpuDevice):
    """Times operators with the code that torch.compile makes of them.

    Copies of an operator, each with weights and inputs of its own, are compiled into one function; the time of a
    compiled call that does next to nothing is taken off. What fusing with its neighbours would save is not seen here:
    the correction learns it from whole models.

    Args:
        threads: Threads of the runtime.
    """

    runtime, package = "torch-compiled", "torch"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._functions: OrderedDict[Operator | None, Callable[..., object]] = OrderedDict()
        self._calls_ms: dict[int, list[float]] = {}

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> tuple[float, ...]:
        """Time an operator; see `Device.sample`."""
        import torch

        from workers.export.torch_compiled_layers import COMPILED_FORMS
        from workers.targets.torch_compiling import add_one, run_calls
        from workers.targets.torch_operators import build_calls

        copies = copies_of(operator, working_set_bytes)
        displaced_bytes = displaced_by(operator, copies, working_set_bytes)
        cpu = torch.device("cpu")
        with torch_inference(self.threads):
            calls = [
                # Copies of one input and the same weights would be computed once.
                build_calls(operator, copies=1, seed=seed + copy, device=cpu, forms=COMPILED_FORMS)[0]
                for copy in range(copies)
            ]
            functions, inputs = tuple(call.function for call in calls), tuple(call.inputs for call in calls)
            nothing_ms = self._calls_ms.setdefault(displaced_bytes, [])
            nothing_ms.extend(self._time(None, add_one, (torch.zeros(1),), runs, displaced_bytes).tolist())
            times_ms = self._time(operator, run_calls, (functions, inputs), runs, displaced_bytes)
        return share_of_copies(times_ms, undisturbed_ms(nothing_ms), copies)

    def whole_model(self, model: nn.Module, task: Task, workload: Workload, folder: Path) -> CompiledSample:
        """Give a copy of the model its kernels; see `Device.whole_model`. It is compiled when it is first timed."""
        inputs = task.random_inputs(workload.batch, workload.sequence_length, seed=1)
        return CompiledSample(model=CompiledModel(model=_traced(model), threads=self.threads), inputs=inputs)

    def open(self, folder: Path) -> TorchCompiledArtifact:
        """Read an exported folder; see `Device.open`."""
        return TorchCompiledArtifact(folder, self.threads)

    def _time(
        self,
        operator: Operator | None,
        function: Callable[..., object],
        arguments: Sequence[Any],
        runs: int,
        displaced_bytes: int,
    ) -> npt.NDArray[float64]:
        """Time a function that is compiled for an operator, None for no operator; ms of each call."""
        from workers.targets.torch_compiling import compile_call

        run = self._functions.pop(operator, None) or compile_call(function, *arguments)
        self._functions[operator] = run
        if len(self._functions) > MAX_COMPILED:
            self._functions.popitem(last=False)
        return time_calls(
            lambda: run(*arguments),
            runs=runs,
            limit_s=SAMPLE_SECONDS,
            displaced_bytes=displaced_bytes,
            quiet=quiet_moments(),
        )


def _traced(model: nn.Module) -> nn.Module:
    """Copy a model with its quantized layers replaced by ones that can be traced."""
    import torch

    from workers.export.torch_compiled_layers import COMPILED_FORMS
    from workers.export.torch_layers import torch_form

    return torch_form(model, COMPILED_FORMS, torch.device("cpu"))
