"""What a target declares, and the part of a job file that names one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from evaluators.latency.shipped import table_file
from evaluators.memory import MemoryPlan
from search_spaces.registry import Registry
from workers.targets.kernels import lacking_on_cpu, lacking_on_gpu

if TYPE_CHECKING:
    from evaluators.latency.table import Fingerprint


class TargetConfig(BaseModel):
    """Device, runtime and workload that latency is for."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "cpu-onnxruntime"
    """Name of a registered target."""
    table: Annotated[Path, AfterValidator(table_file)] | None = None
    """Latency table, or shipped:NAME of one that comes with Paretrim; None measures this machine once and keeps the
    table with the study."""
    batch: int = Field(default=1, ge=1, le=4096)
    """Examples in one call of the deployed model."""
    sequence_length: int | None = Field(default=None, ge=1)
    """Tokens of an example; None where the model fixes them (images)."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads of the runtime."""
    allow_foreign_table: bool = False
    """Take a table that was measured on other hardware, for planning only; every result says so."""
    allow_extrapolation: bool = False
    """Go on beyond the sizes that the table was measured for, for planning only; every result says so."""


ONNX_FILE = "model.onnx"
"""File of the ONNX form in an artifact."""


class ExportForm(StrEnum):
    """What a model is exported to for a target."""

    ONNX = "onnx"
    """One ONNX file."""
    HUGGING_FACE = "huggingface"
    """A Hugging Face folder, whose layers get the target's kernels when it is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device and runtime.

    Attributes:
        name: Name in job files.
        formats: Formats with a kernel there, the base format first.
        channel_multiple: Kept widths are multiples of this.
        form: What the model is exported to.
        obstacle: Returns why nothing can be timed here now (no runtime, no device), or None where it can.
        lacking: Returns those of the formats that have no kernel on the device of a fingerprint, each with the reason;
            None where every device of the target has kernels for all.
        description: One line for people.
    """

    name: str
    formats: tuple[str, ...]
    channel_multiple: int
    form: ExportForm = ExportForm.ONNX
    obstacle: Callable[[], str | None] = lambda: None
    lacking: Callable[[Fingerprint], Mapping[str, str]] | None = None
    description: str

    @property
    def memory_plan(self) -> MemoryPlan:
        """How the runtime holds tensors: ONNX Runtime plans buffers, torch frees tensors one by one."""
        return MemoryPlan.REUSED if self.form is ExportForm.ONNX else MemoryPlan.FREED

    def available(self) -> str | None:
        """Return why the target is unavailable on this machine; None where it is available."""
        return self.obstacle()


def _lacks(*modules: str) -> Callable[[], str | None]:
    """An obstacle: one of these packages is not installed."""

    def missing() -> str | None:
        absent = [name for name in modules if find_spec(name) is None]
        return f"the Python package {absent[0]} is not installed" if absent else None

    return missing


def _no_compiler() -> str | None:
    if (missing := _lacks("torch")()) is not None:
        return missing
    from workers.targets.compiler import compiler_obstacle

    return compiler_obstacle()


def _no_cuda() -> str | None:
    if (missing := _lacks("torch")()) is not None:
        return missing
    from workers.targets.torch_cuda import cuda_obstacle

    return cuda_obstacle()


TARGETS: Registry[Target] = Registry("target", entry_point_group="paretrim.targets")

for _target in (
    Target(
        name="cpu-onnxruntime",
        formats=("fp32", "w8a8", "w4", "w4g128", "w8", "w8a8s"),
        channel_multiple=8,
        form=ExportForm.ONNX,
        obstacle=_lacks("onnxruntime"),
        description="ONNX Runtime on this machine's CPU, sequential executor",
    ),
    Target(
        name="cpu-torch",
        formats=("fp32", "w8a8", "bf16", "w8"),
        channel_multiple=8,
        form=ExportForm.HUGGING_FACE,
        obstacle=_lacks("torch"),
        lacking=lacking_on_cpu,
        description="PyTorch on this machine's CPU, operator by operator",
    ),
    Target(
        name="cpu-torch-compiled",
        formats=("fp32", "w8a8", "bf16", "w8"),
        channel_multiple=8,
        form=ExportForm.HUGGING_FACE,
        obstacle=_no_compiler,
        lacking=lacking_on_cpu,
        description="PyTorch on this machine's CPU, compiled whole by torch.compile",
    ),
    Target(
        name="cuda-torch",
        formats=("fp32", "bf16", "fp16", "fp8", "w8a8r", "w4a16", "w8"),
        channel_multiple=16,
        form=ExportForm.HUGGING_FACE,
        obstacle=_no_cuda,
        lacking=lacking_on_gpu,
        description="PyTorch on this machine's first NVIDIA GPU, a replayed CUDA graph",
    ),
):
    TARGETS.register(_target.name)(_target)
