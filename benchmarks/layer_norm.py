"""What the form of a residual addition costs in ONNX Runtime: an `Add`, which it fuses with the layer normalisation
after it, against a `Sum`, which it leaves alone.

    python -m benchmarks.layer_norm

`ratio` is the time of the fused form over that of the two apart, the median of paired runs, for the hidden states of
MiniLM (32 tokens, 384 features) and of wider models; `largest_difference` is that of the outputs.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from benchmarks.recording import record
from workers.targets.onnxruntime_cpu import open_session

_SHAPES = ((32, 384), (128, 384), (32, 768), (128, 1024))
_LAYERS = 20
_ROUNDS = 40


def main() -> None:
    """Time both forms in turn and print the ratios."""
    found = {f"{tokens}x{features}": _compare(tokens, features) for tokens, features in _SHAPES}
    figures: dict[str, Any] = {
        "ratio": statistics.median(ratio for ratio, _ in found.values()),
        "largest_difference": max(difference for _, difference in found.values()),
    }
    record("layer_norm", figures, details={"ratios": {shape: ratio for shape, (ratio, _) in found.items()}})


def _compare(tokens: int, features: int) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    feeds = {name: generator.standard_normal((1, tokens, features), np.float32) for name in ("hidden0", "residual")}
    fused, apart = (open_session(_chain(form, tokens, features), threads=1) for form in ("Add", "Sum"))
    difference = float(np.abs(fused.run(None, feeds)[0] - apart.run(None, feeds)[0]).max())
    ratios = [_seconds(fused, feeds) / _seconds(apart, feeds) for _ in range(_ROUNDS)]
    return round(statistics.median(ratios), 3), difference


def _chain(form: str, tokens: int, features: int) -> bytes:
    """Layers of residual addition and normalisation, one after the other."""
    nodes = []
    for layer in range(_LAYERS):
        nodes.append(helper.make_node(form, [f"hidden{layer}", "residual"], [f"total{layer}"]))
        norm = [f"total{layer}", "gain", "bias"]
        nodes.append(helper.make_node("LayerNormalization", norm, [f"hidden{layer + 1}"], axis=-1, epsilon=1e-12))
    shape = (1, tokens, features)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("hidden0", "residual")]
    output = helper.make_tensor_value_info(f"hidden{_LAYERS}", TensorProto.FLOAT, shape)
    weights = [numpy_helper.from_array(np.ones(features, np.float32), name) for name in ("gain", "bias")]
    graph = helper.make_graph(nodes, "chain", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _seconds(session: Any, feeds: dict[str, npt.NDArray[np.float32]]) -> float:
    started = time.perf_counter()
    for _ in range(5):
        session.run(None, feeds)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
