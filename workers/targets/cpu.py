"""What this machine's CPU is, as far as times depend on it."""

import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from evaluators.latency.table import Fingerprint
from workers.targets.energy_meters import RaplMeter, cpu_meter

TELLING_FLAGS = re.compile(r"avx\w*|amx\w*|fma|f16c|sse4_2|neon|asimd\w*|sve\w*|i8mm|bf16")
"""Instruction sets by which kernels are chosen; other flags change with the kernel of the operating system."""


def cpu_model() -> tuple[str, tuple[str, ...]]:
    """Return the CPU's name and the sorted instruction sets that kernels are chosen by."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), ()
    fields: dict[str, str] = dict(re.findall(r"^([^\n:]+?)[ \t]*:[ \t]*(.*)$", text.split("\n\n")[0], re.MULTILINE))
    name = fields.get("model name") or fields.get("CPU part") or platform.machine()
    # Virtual machines cut the name ("AMD EPYC"): family and model tell generations apart.
    family = "/".join(fields[key] for key in ("cpu family", "model", "CPU implementer", "CPU variant") if key in fields)
    flags = fields.get("flags", fields.get("Features", "")).split()
    return f"{name.strip()} ({family})", tuple(sorted({flag for flag in flags if TELLING_FLAGS.fullmatch(flag)}))


def cpu_clocks() -> str | None:
    """Return the frequency governor and the present clock where the system tells them."""
    folder = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    try:
        governor = (folder / "scaling_governor").read_text(encoding="ascii").strip()
        kilohertz = int((folder / "scaling_cur_freq").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return f"governor {governor}, {kilohertz // 1000} MHz"


def system_name() -> str:
    """Return operating system and architecture ("Linux x86_64")."""
    return f"{platform.system()} {platform.machine()}"


class CpuDevice:
    """What devices on this machine's CPU have in common; see `Device`.

    Args:
        threads: Threads of the runtime.

    Attributes:
        runtime: Name of the runtime in fingerprints.
        package: Distribution that the runtime's version is of.
    """

    runtime: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of this machine; the runtime itself is not loaded."""
        device, flags = cpu_model()
        return Fingerprint(
            device=device,
            flags=flags,
            runtime=self.runtime,
            runtime_version=version(self.package),
            threads=self.threads,
            os=system_name(),
        )

    def clocks(self) -> str | None:
        """Return the frequency governor and the present clock where the system tells them."""
        return cpu_clocks()

    def energy_meter(self) -> RaplMeter | None:
        """Return the counter of the CPU's packages; see `cpu_meter`."""
        return cpu_meter()
