"""A device that operators and models are timed on: what a target brings so that its latency table can be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evaluators.latency.table import Fingerprint
from evaluators.latency.workload import Operator, Workload
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from evaluators.tasks import Task
    from workers.targets.energy_meters import EnergyMeter


class KernelError(ValueError):
    """A target has no kernel for an operator, or not on this device."""


class TimedModel(Protocol):
    """A whole model in the form that a runtime takes, with inputs of a workload."""

    def sample(self, *, runs: int) -> Sequence[float]:
        """Open the model afresh, warm it up and time it, in quiet moments where these can be told.

        Args:
            runs: Timed runs; fewer where they take long, more where few were quiet.

        Returns:
            Milliseconds of each run of the whole model, above 0.
        """
        ...


class RunningModel(Protocol):
    """An exported model, read from its files by the runtime that it is for.

    Attributes:
        runtime: Name and version of the runtime.
        files: Files that the model was read from.
    """

    runtime: str
    files: tuple[Path, ...]

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run one call of the model on a batch, by input name; the outputs come back to the CPU."""
        ...

    def time(self, inputs: Mapping[str, Tensor], *, runs: int, quiet: bool = False) -> Sequence[float]:
        """Warm the model up and time calls on a batch.

        Args:
            inputs: Inputs by name.
            runs: Timed calls.
            quiet: Wait for moments in which nothing else slows the device, as tables are measured; else calls come as
                they do in use.

        Returns:
            Milliseconds of each call, above 0; fewer than `runs` where they take long.
        """
        ...


class Device(Protocol):
    """Times single operators and whole models with the kernels that the exported model runs."""

    def fingerprint(self) -> Fingerprint:
        """Return what the times hold for."""
        ...

    def clocks(self) -> str | None:
        """Return what is known of the clock frequency now, in a few words."""
        ...

    def energy_meter(self) -> EnergyMeter | None:
        """Return a counter of the device's energy; None where it has none that can be read."""
        ...

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> Sequence[float]:
        """Time an operator afresh: new weights, warm-up, then `runs` runs, in quiet moments where these can be told.

        Args:
            operator: What to time.
            runs: Timed runs; fewer where they take long, more where few were quiet.
            seed: Seed of weights and inputs.
            working_set_bytes: Bytes that a model of this operator's format reads between two runs of the same weights.
                They decide from which cache, or from memory, the weights come.

        Returns:
            Milliseconds of one operator in each run, above 0.

        Raises:
            KernelError: The target has no kernel for the operator.
        """
        ...

    def whole_model(self, model: nn.Module, task: Task, workload: Workload, folder: Path) -> TimedModel:
        """Put an assembled model into the runtime's own form, with random inputs of a workload.

        Args:
            model: The model of a policy. It is as before when this returns, and may change then.
            task: Says what the inputs look like.
            workload: Shape of the inputs.
            folder: A folder for files; what is written there must stay until the last sample.
        """
        ...

    def open(self, folder: Path) -> RunningModel:
        """Read an artifact from its folder, in the form that the target takes.

        Raises:
            KernelError: A layer has no kernel on this device.
        """
        ...


DEVICES: Registry[Callable[[int], Device]] = Registry("device", entry_point_group="paretrim.targets")
"""Target name to a function from a number of threads to the device."""


@DEVICES.register("cpu-onnxruntime")
def _onnxruntime_cpu(threads: int) -> Device:
    from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu

    return OnnxRuntimeCpu(threads)


@DEVICES.register("cpu-torch")
def _torch_cpu(threads: int) -> Device:
    from workers.targets.torch_cpu import TorchCpu

    return TorchCpu(threads)


@DEVICES.register("cpu-torch-compiled")
def _torch_cpu_compiled(threads: int) -> Device:
    from workers.targets.torch_cpu_compiled import TorchCpuCompiled

    return TorchCpuCompiled(threads)


@DEVICES.register("cuda-torch")
def _torch_cuda(threads: int) -> Device:
    from workers.targets.torch_cuda import TorchCuda

    return TorchCuda(threads)
