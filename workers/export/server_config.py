"""The `quantization_config` by which other programs read a folder's layers: that of compressed-tensors.

Weights are stored exactly; what such a program does to the inputs of layers is its own. Servers round them token by
token, as one range for a whole call would let one request change another's answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workers.export.layer_forms import LayerForm, StoredLayer

_ROWS: Mapping[str, Any] = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
_TOKENS: Mapping[str, Any] = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "token", "dynamic": True}


def quantization_config(layers: Mapping[str, StoredLayer], float_layers: Sequence[str]) -> dict[str, Any] | None:
    """Describe quantized layers; None where there are none that compressed-tensors has a form for.

    Args:
        layers: Stored layers by the name that transformers gives them.
        float_layers: Names of linear layers that are not quantized.
    """
    groups = []
    for form, block in sorted({(s.form, s.block) for s in layers.values() if s.form in _SCHEMES}):
        targets = sorted(name for name, s in layers.items() if (s.form, s.block) == (form, block))
        groups.append({"targets": targets, **_SCHEMES[form]})
        if block:
            groups[-1]["weights"] = {**groups[-1]["weights"], "group_size": block}
    if not groups:
        return None
    formats = {group["format"] for group in groups}
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "config_groups": {f"group_{number}": group for number, group in enumerate(groups)},
        "ignore": sorted(float_layers),
    }


_SCHEMES: Mapping[LayerForm, Mapping[str, Any]] = {
    LayerForm.INT8: {"weights": _ROWS, "input_activations": _TOKENS, "format": "int-quantized"},
    LayerForm.INT8_PER_ROW: {
        "weights": _ROWS,
        "input_activations": {**_TOKENS, "symmetric": True},
        "format": "int-quantized",
    },
    LayerForm.FLOAT8_PER_ROW: {
        "weights": {**_ROWS, "type": "float"},
        "input_activations": {**_TOKENS, "type": "float", "symmetric": True},
        "format": "float-quantized",
    },
    LayerForm.INT8_ROWS: {"weights": _ROWS, "format": "naive-quantized"},
    LayerForm.INT4: {
        "weights": {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group"},
        "format": "pack-quantized",
    },
}
