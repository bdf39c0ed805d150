"""What a target declares, and the part of a job file that names one."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from search_spaces.registry import Registry


class TargetConfig(BaseModel):
    """Device, runtime and workload that latency is for."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "cpu-onnxruntime"
    """Name of a registered target."""
    table: Path | None = None
    """Latency table; None measures this machine once and keeps the table with the study."""
    batch: int = Field(default=1, ge=1, le=4096)
    """Examples in one call of the deployed model."""
    sequence_length: int | None = Field(default=None, ge=1)
    """Tokens of an example; None where the model fixes them (images)."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads of the runtime."""
    allow_foreign_table: bool = False
    """Take a table that was measured on other hardware, for planning only; every result says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device and runtime.

    Attributes:
        name: Name in job files.
        formats: Formats with a kernel there, the base format first.
        channel_multiple: Kept widths are multiples of this.
        description: One line for people.
    """

    name: str
    formats: tuple[str, ...]
    channel_multiple: int
    description: str


TARGETS: Registry[Target] = Registry("target", entry_point_group="paretrim.targets")

TARGETS.register("cpu-onnxruntime")(
    Target(
        name="cpu-onnxruntime",
        formats=("fp32", "w8a8", "w4", "w4g128", "w8", "w8a8s"),
        channel_multiple=8,
        description="ONNX Runtime on this machine's CPU, sequential executor",
    )
)
