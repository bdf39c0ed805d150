"""PyTorch on this machine's CPU: the times of operators and of whole models, run operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.latency.workload import Operator, OperatorKind, Workload
from workers.targets.copies import copies_of, displaced_by
from workers.targets.cpu import CpuDevice
from workers.targets.quiet import quiet_moments
from workers.targets.timing import MODEL_SECONDS, SAMPLE_SECONDS, time_calls, time_copies
from workers.targets.torch_threads import torch_inference

if TYPE_CHECKING:
    from torch import Tensor, nn

    from evaluators.tasks import Task

NEIGHBOURS = (
    Operator.of(OperatorKind.LINEAR, format="fp32", tokens=32, in_features=256, out_features=256),
    Operator.of(OperatorKind.ATTENTION_CORE, batch=1, sequence=32, heads=8, queries=1, head_dim=32),
    Operator.of(OperatorKind.ACTIVATION, function="gelu", tokens=32, features=1024),
    Operator.of(OperatorKind.LAYER_NORM, tokens=32, features=256),
)
"""What runs before each timed call, but for its own kind: in a model too, other code has used the caches since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchCpuModel:
    """A whole model with real kernels.

    Attributes:
        model: The model.
        inputs: Its inputs by name.
        threads: Threads of the runtime.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]
    threads: int

    def sample(self, *, runs: int) -> tuple[float, ...]:
        """Time the model; see `TimedModel.sample`."""
        return self.time(runs=runs, quiet=True)

    def time(self, *, runs: int, quiet: bool) -> tuple[float, ...]:
        """Time the model; `quiet` waits for quiet moments (see `time_calls`)."""
        moments = quiet_moments() if quiet else None
        with torch_inference(self.threads):
            times_ms = time_calls(lambda: self.model(**self.inputs), runs=runs, limit_s=MODEL_SECONDS, quiet=moments)
        return tuple(times_ms.tolist())


class TorchCpuArtifact:
    """An exported folder with real kernels; see `RunningModel`.

    Args:
        folder: What `export_huggingface` wrote.
        threads: Threads of the runtime.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        import torch

        from workers.export.loading import load_folder, weights_file
        from workers.export.torch_layers import CPU_FORMS, torch_form

        self._model = torch_form(load_folder(folder), CPU_FORMS, torch.device("cpu"))
        self._threads = threads
        self.runtime = f"torch {version('torch')}"
        self.files: tuple[Path, ...] = (weights_file(folder),)

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run one call."""
        with torch_inference(self._threads):
            found: Tensor = self._model(**inputs).logits
        return found

    def time(self, inputs: Mapping[str, Tensor], *, runs: int, quiet: bool = False) -> tuple[float, ...]:
        """Time calls."""
        return TorchCpuModel(model=self._model, inputs=inputs, threads=self._threads).time(runs=runs, quiet=quiet)


class TorchCpu(CpuDevice):
    """Times operators with torch's own kernels.

    An operator runs several times, each with weights of its own, so that these come from memory as in a model, and with
    other operators in between. What a call costs in Python and in the dispatcher is part of the time: a model in torch
    pays it for every operator.

    Args:
        threads: Threads of one operator.
    """

    runtime, package = "torch", "torch"

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> tuple[float, ...]:
        """Time an operator; see `Device.sample`."""
        import torch

        from workers.export.torch_layers import CPU_FORMS
        from workers.targets.torch_operators import build_calls

        copies = copies_of(operator, working_set_bytes, fill=True)
        with torch_inference(self.threads):
            cpu = torch.device("cpu")
            calls = build_calls(operator, copies=copies, seed=seed, device=cpu, forms=CPU_FORMS)
            others = [other for other in NEIGHBOURS if other.kind is not operator.kind]
            neighbours = [build_calls(o, copies=1, seed=0, device=cpu, forms=CPU_FORMS)[0] for o in others]
            times_ms = time_copies(
                calls,
                runs=runs,
                limit_s=SAMPLE_SECONDS,
                displaced_bytes=displaced_by(operator, copies, working_set_bytes),
                between=lambda: [neighbour() for neighbour in neighbours],
                quiet=quiet_moments(),
            )
        return tuple(times_ms.tolist())

    def whole_model(self, model: nn.Module, task: Task, workload: Workload, folder: Path) -> TorchCpuModel:
        """Give a copy of the model its kernels; see `Device.whole_model`. Nothing is written."""
        import torch

        from workers.export.torch_layers import CPU_FORMS, torch_form

        inputs = task.random_inputs(workload.batch, workload.sequence_length, seed=1)
        form = torch_form(model, CPU_FORMS, torch.device("cpu"))
        return TorchCpuModel(model=form, inputs=inputs, threads=self.threads)

    def open(self, folder: Path) -> TorchCpuArtifact:
        """Read an exported folder; see `Device.open`."""
        return TorchCpuArtifact(folder, self.threads)
