"""Energy counters of this machine: RAPL of the CPU's packages, and NVML of a GPU."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, Protocol

POWER_CAP = Path("/sys/class/powercap")
NVML_LIBRARY = "libnvidia-ml.so.1"
_TOP_ZONE = re.compile(r"intel-rapl:\d+")
_MEMORY_ZONE = re.compile(r"intel-rapl:\d+:\d+")


class EnergyMeter(Protocol):
    """A counter of the energy that a device takes.

    Attributes:
        source: Name of the meter, for people ("RAPL package-0").
    """

    source: str

    def joules(self) -> float:
        """Return the energy since some moment in joule; differences mean something only.

        Raises:
            OSError: The counter can't be read any more.
        """
        ...


class RaplMeter:
    """Sum of counters of the Linux power capping framework, which start anew at a largest value.

    Args:
        zones: Folders with `name`, `energy_uj` and `max_energy_range_uj`, one or more.
    """

    def __init__(self, zones: tuple[Path, ...]) -> None:
        self._zones = zones
        self._ranges = tuple(_number(zone / "max_energy_range_uj") for zone in zones)
        self._last = tuple(_number(zone / "energy_uj") for zone in zones)
        self._total_uj = 0
        names = (_named(zone) for zone in zones)
        self.source = "RAPL " + ", ".join(names)

    def joules(self) -> float:
        """See `EnergyMeter.joules`; a counter that began anew since the last call is taken to have done so once."""
        now = tuple(_number(zone / "energy_uj") for zone in self._zones)
        for before, after, span in zip(self._last, now, self._ranges, strict=True):
            self._total_uj += after - before if after >= before else after + span - before
        self._last = now
        return self._total_uj / 1e6


class NvmlMeter:
    """The energy counter of one GPU, by the driver's own library.

    Args:
        library: The library, initialised.
        device: Handle of the GPU.
        name: Name of the GPU, for people.
    """

    def __init__(self, library: Any, device: Any, name: str) -> None:
        self._library, self._device = library, device
        self.source = f"NVML {name}"
        self.joules()

    def joules(self) -> float:
        """See `EnergyMeter.joules`."""
        found_mj = ctypes.c_ulonglong()
        status = self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(found_mj))
        if status != 0:
            raise OSError(f"NVML tells the energy of GPUs since Volta; it returned status {status} for {self.source}")
        return found_mj.value / 1e3


def cpu_meter(root: Path = POWER_CAP) -> RaplMeter | None:
    """Return the meter of this machine's CPU packages and their memory; None where none can be read.

    Since Linux 5.10 only root may read the counters, unless their files are made readable.

    Args:
        root: Folder of the power capping framework.
    """
    try:
        folders = sorted(root.iterdir()) if root.is_dir() else []
        packages = tuple(f for f in folders if _TOP_ZONE.fullmatch(f.name) and _named(f).startswith("package"))
        memory = tuple(f for f in folders if _MEMORY_ZONE.fullmatch(f.name) and _named(f) == "dram")
        return RaplMeter((*packages, *memory)) if packages else None
    except (OSError, ValueError):
        return None


def gpu_meter(uuid: str, name: str, library: Any = None) -> NvmlMeter | None:
    """Return the meter of a GPU; None where the driver's library is missing or the GPU has no counter.

    Args:
        uuid: Identity of the GPU ("GPU-...").
        name: Name for people.
        library: NVML; None loads it.
    """
    try:
        nvml = ctypes.CDLL(NVML_LIBRARY) if library is None else library
        device = ctypes.c_void_p()
        if nvml.nvmlInit_v2() != 0 or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)) != 0:
            return None
        return NvmlMeter(nvml, device, name)
    except (OSError, AttributeError):
        return None


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _named(zone: Path) -> str:
    return (zone / "name").read_text(encoding="ascii").strip()
