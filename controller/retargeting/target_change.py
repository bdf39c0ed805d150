"""What differs between a study's own target and another one that its policies are priced on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from controller.problems import show, suggest
from evaluators.latency.shipped import table_file
from workers.targets.base import TARGETS, TargetConfig

if TYPE_CHECKING:
    from evaluators.latency.table import LatencyTable


class TargetChange(BaseModel):
    """Another target. What is left out is that of the job's own target; a table given tells device and threads too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: str | None = None
    """Name of a registered target; None takes the table's, or the job's."""
    table: Annotated[Path, AfterValidator(table_file)] | None = None
    """Latency table, of this device or of another, or shipped:NAME of one that comes with Paretrim; None measures this
    machine once and keeps the table with the study."""
    batch: int | None = Field(default=None, ge=1, le=4096)
    """Examples in one call. With another number than the job's, scores are estimates until they are made again."""
    sequence_length: int | None = Field(default=None, ge=1)
    """Tokens of an example."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads of the runtime; None takes the table's, or the job's."""
    allow_foreign_table: bool = False
    """Take a table that stands in for what was not measured, for planning only; every result says so. A study moves to
    a table of another device without it: latencies hold there then. Another runtime, another number of threads, and
    what other people measured take it."""
    allow_extrapolation: bool = False
    """Go on beyond the sizes that the table was measured for, for planning only; every result says so."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Largest latency of one call on this target, above 0; None takes the job's constraint."""
    max_energy_mj: float | None = Field(default=None, gt=0)
    """Largest energy of one batch in millijoule on this target, above 0; None takes the job's constraint."""
    max_peak_memory_bytes: int | None = Field(default=None, gt=0)
    """Largest peak memory of activations on this target, above 0; None takes the job's constraint."""
    evaluations: int | None = Field(default=None, ge=0, le=1_000_000)
    """Policies that may be scored for this target, 0 or more; None takes 6, and 24 where the batch differs."""
    study: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")
    """Name of the study that keeps the result; None adds what differs to the job's name."""

    @field_validator("name")
    @classmethod
    def _target_is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in TARGETS:
            raise ValueError(f"must be a target; got {show(name)}; {suggest(name, TARGETS)}")
        return name

    @property
    def bounds(self) -> dict[str, float]:
        """Constraints that are given, by name."""
        names = ("max_latency_ms", "max_energy_mj", "max_peak_memory_bytes")
        return {name: bound for name in names if (bound := getattr(self, name)) is not None}

    def applied_to(self, target: TargetConfig, table: LatencyTable | None) -> TargetConfig:
        """Return the other target.

        Args:
            target: The job's own.
            table: The table that `table` names; None where it names none.
        """
        known = (None, None) if table is None else (table.target, table.fingerprint.threads)
        given = {
            "name": self.name or known[0],
            "threads": self.threads or known[1],
            "batch": self.batch,
            "sequence_length": self.sequence_length,
        }
        return target.model_copy(
            update={
                **{key: value for key, value in given.items() if value is not None},
                "table": self.table,
                "allow_foreign_table": self.allow_foreign_table,
                "allow_extrapolation": self.allow_extrapolation,
            }
        )


def differences(before: TargetConfig, now: TargetConfig) -> tuple[str, ...]:
    """Return in a few letters what two targets differ in, beside their tables: "b8", "s128", "2t", a target's name."""
    found = [] if before.name == now.name else [now.name]
    found += [] if before.batch == now.batch else [f"b{now.batch}"]
    found += [] if before.sequence_length == now.sequence_length else [f"s{now.sequence_length}"]
    found += [] if before.threads == now.threads else [f"{now.threads}t"]
    return tuple(found)


def describe_target(target: TargetConfig) -> str:
    """Describe a target in words: "cpu-onnxruntime, 2 threads, 1 example of 32 tokens a call"."""
    threads = f"{target.threads} {'thread' if target.threads == 1 else 'threads'}"
    examples = f"{target.batch} {'example' if target.batch == 1 else 'examples'}"
    tokens = "" if target.sequence_length is None else f" of {target.sequence_length} tokens"
    return f"{target.name}, {threads}, {examples}{tokens} a call"
