"""Which of a target's formats have no kernel on a device, told by the device's fingerprint: here or of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluators.latency.table import Fingerprint

_CAPABILITY = re.compile(r"sm_(\d+)(\d)")
_INT8_PRODUCTS = "avx512_vnni"
"""The instructions that torch asks for before it multiplies int8 matrices."""


def lacking_on_gpu(mark: Fingerprint) -> Mapping[str, str]:
    """Return the formats that torch has no kernel for on a GPU, each with the reason.

    Args:
        mark: Fingerprint of the GPU; nothing is lacking where its flags name no compute capability.
    """
    from workers.targets.torch_cuda import LEAST_CAPABILITY

    found = [match for flag in mark.flags if (match := _CAPABILITY.fullmatch(flag))]
    if not found:
        return {}
    major, minor = (int(number) for number in found[0].groups())
    return {
        name: f"it needs compute capability {least[0]}.{least[1]}, {mark.device} has {major}.{minor}"
        for name, least in LEAST_CAPABILITY.items()
        if (major, minor) < least
    }


def lacking_on_cpu(mark: Fingerprint) -> Mapping[str, str]:
    """Return the formats that torch has no kernel for on a CPU, each with the reason.

    Args:
        mark: Fingerprint of the CPU; nothing is lacking where its flags are not known.
    """
    if not mark.flags or _INT8_PRODUCTS in mark.flags:
        return {}
    return {"w8a8": f"it needs a CPU with VNNI instructions ({_INT8_PRODUCTS}), {mark.device} has none"}
