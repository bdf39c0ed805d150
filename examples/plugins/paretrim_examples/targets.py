"""ONNX Runtime on a CPU, with a format that Paretrim's own target does not list."""

from __future__ import annotations

from dataclasses import replace

from workers.targets.base import TARGETS
from workers.targets.device import DEVICES, Device

NAME = "cpu-onnxruntime-g64"
_RUNTIME = TARGETS.get("cpu-onnxruntime")

TARGETS.register(NAME)(
    replace(
        _RUNTIME,
        name=NAME,
        formats=(*_RUNTIME.formats, "w4g64"),
        description="ONNX Runtime on this machine's CPU, with 4-bit weights in groups of 64 as well",
    )
)


@DEVICES.register(NAME)
def onnxruntime_cpu(threads: int) -> Device:
    """The device that times operators and models; its kernels take any group size that is a power of two from 16 on."""
    from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu

    return OnnxRuntimeCpu(threads)
