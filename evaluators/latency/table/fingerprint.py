"""Where the times of a table hold, and whether that is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from evaluators.latency.table.base import StoredRecord

if TYPE_CHECKING:
    from evaluators.latency.table.record import LatencyTable


class ForeignTableError(ValueError):
    """A latency table was measured on other hardware, another runtime or other threads."""


class Fingerprint(StoredRecord):
    """Where times hold: another value in any field gives other times."""

    device: str
    """Model of the CPU or GPU."""
    flags: tuple[str, ...] = Field(default=(), strict=False)
    """Instruction sets that kernels choose by, sorted."""
    driver: str | None = None
    """Version of the device's driver; None where there is none (a CPU), or an imported source does not state it."""
    runtime: str
    """Name of the runtime ("onnxruntime")."""
    runtime_version: str
    """Its version; "not stated" where an imported source is silent."""
    threads: PositiveInt
    """Threads of the runtime."""
    os: str
    """Operating system and architecture ("Linux x86_64"); "not stated" where an imported source is silent."""

    @property
    def words(self) -> str:
        """Device, runtime and threads in words: "Board X, onnxruntime 1.23.0, 2 threads"."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.device}, {self.runtime} {self.runtime_version}, {threads}"

    def differences(self, other: Fingerprint, *, names: tuple[str, str] = ("there", "here")) -> tuple[str, ...]:
        """Describe every field that differs ("threads: 1 there, 2 here"), `other` being the second of the names.

        Of flags those are named that only one of the two has.
        """
        mine, its = self.model_dump(), other.model_dump()
        first, second = names
        found = {
            name: f"{name}: {mine[name]!r} {first}, {its[name]!r} {second}" for name in mine if mine[name] != its[name]
        }
        sides = ((set(self.flags) - set(other.flags), first), (set(other.flags) - set(self.flags), second))
        if only := [f"{' '.join(sorted(flags))} only {where}" for flags, where in sides if flags]:
            found["flags"] = f"flags: {', '.join(only)}"
        return tuple(found.values())


def check_fingerprint(
    table: LatencyTable, here: Fingerprint, *, target: str | None = None, allow_foreign: bool = False
) -> tuple[str, ...]:
    """Check that a table was measured on this device, runtime and number of threads, and for this target.

    Args:
        table: The table.
        here: Fingerprint of this machine with the threads of the job.
        target: Name of the job's target, as two targets may tell the same fingerprint; None takes a table of any.
        allow_foreign: Take a foreign table, for planning only.

    Returns:
        The differences, empty where the table is from here. Every result that rests on a foreign table must say so.

    Raises:
        ForeignTableError: The table is foreign and that is not allowed.
    """
    differences = table.differences_from(here, target=target)
    if differences and not allow_foreign:
        raise ForeignTableError(
            "a latency table holds for the device, runtime, threads and target that it was measured with; this one "
            f"differs: {'; '.join(differences)}; measure this machine with `paretrim profile`, or pass "
            "--allow-foreign-table (allow_foreign_table: true in the job's target) for planning"
        )
    return differences
