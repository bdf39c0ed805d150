import ctypes
from pathlib import Path

import pytest

from workers.targets.energy_meters import cpu_meter, gpu_meter


def zone(root: Path, folder: str, name: str, energy_uj: int, *, span_uj: int = 1000) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{span_uj}\n")
    return path


def test_packages_and_their_memory_are_added_up_without_what_they_hold(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0", "package-0", 100), zone(tmp_path, "intel-rapl:1", "package-1", 50)
    zone(tmp_path, "intel-rapl:0:0", "core", 70)
    zone(tmp_path, "intel-rapl:2", "psys", 900)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 10)
    meter = cpu_meter(tmp_path)
    assert meter is not None
    assert meter.source == "RAPL package-0, package-1, dram"
    before = meter.joules()
    for path, energy_uj in ((first, 300), (second, 60), (memory, 15)):
        (path / "energy_uj").write_text(str(energy_uj))
    assert meter.joules() - before == pytest.approx(215e-6)


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900)
    meter = cpu_meter(tmp_path)
    assert meter is not None
    (package / "energy_uj").write_text("100")
    assert meter.joules() == pytest.approx(200e-6)


def test_a_machine_without_readable_counters_has_no_meter(tmp_path: Path) -> None:
    assert cpu_meter(tmp_path / "none") is None
    assert cpu_meter(tmp_path) is None
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900)
    (package / "energy_uj").write_text("not a number")
    assert cpu_meter(tmp_path) is None
    (package / "energy_uj").unlink()
    assert cpu_meter(tmp_path) is None


class Library:
    """The three functions of NVML, as there is no driver here."""

    def __init__(self, *, counts: bool = True) -> None:
        self.counts, self.energy_mj = counts, 5000

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, device: object) -> int:
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, device: ctypes.c_void_p, found: object) -> int:
        if not self.counts:
            return 3
        found._obj.value = self.energy_mj  # type: ignore[attr-defined]
        return 0


def test_a_gpu_is_found_by_its_identity_and_counts_joule() -> None:
    library = Library()
    meter = gpu_meter("GPU-1", "H100", library)
    assert meter is not None
    assert meter.source == "NVML H100"
    before = meter.joules()
    library.energy_mj += 1500
    assert meter.joules() - before == pytest.approx(1.5)
    library.counts = False
    with pytest.raises(OSError, match=r"NVML tells the energy of GPUs since Volta; it returned status 3 for NVML H100"):
        meter.joules()


def test_a_gpu_without_a_counter_or_a_driver_has_no_meter() -> None:
    assert gpu_meter("GPU-2", "other", Library()) is None
    assert gpu_meter("GPU-1", "old", Library(counts=False)) is None
    assert gpu_meter("GPU-1", "old", object()) is None
