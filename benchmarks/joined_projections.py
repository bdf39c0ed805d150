"""Projections of one input as three matrix products, and as one product that is split: what ONNX Runtime gains.

    python -m benchmarks.joined_projections

`ratio` is the time of three over that of one, the median over shapes; above 1 the joined product is faster. The largest
difference of outputs says that both compute the same.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from benchmarks.recording import record
from workers.targets.onnxruntime_cpu import open_session, time_runs

_SHAPES = ((32, 384), (32, 192), (512, 384), (128, 768), (32, 1024))
"""Tokens and width; each projection gives as many features."""
_COPIES, _ROUNDS, _RUNS = 6, 20, 15


def main() -> None:
    """Time both forms in turn and print one JSON line."""
    rows = {f"{form} {tokens}x{width}": _compare(form, tokens, width) for form in _FORMS for tokens, width in _SHAPES}
    figures: dict[str, Any] = {}
    for form in _FORMS:
        ratios = [row["ratio"] for name, row in rows.items() if name.startswith(form)]
        figures[f"ratio_{form}"] = round(statistics.median(ratios), 3)
    record("joined_projections", figures, details={"rows": rows})


def _compare(form: str, tokens: int, width: int) -> dict[str, float]:
    sessions = [open_session(_graph(form, joined, tokens, width), threads=1) for joined in (False, True)]
    generator = np.random.default_rng(0)
    feeds = {node.name: generator.standard_normal(node.shape).astype(np.float32) for node in sessions[0].get_inputs()}
    outputs = [session.run(None, feeds) for session in sessions]
    difference = max(float(np.abs(a - b).max()) for a, b in zip(*outputs, strict=True))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for mine, session in zip(times, sessions, strict=True):
            mine.append(float(np.median(time_runs(session, feeds, runs=_RUNS))))
    apart, joined = (statistics.median(mine) for mine in times)
    return {"ratio": round(apart / joined, 3), "apart_ms": apart / _COPIES, "difference": difference}


def _graph(form: str, joined: bool, tokens: int, width: int) -> bytes:
    """Several independent triples of projections with weights of their own, so that these come from memory."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(1)
    nodes: list[Any] = []
    weights: list[Any] = []
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [tokens, width]) for i in range(_COPIES)]
    outputs = []
    for copy in range(_COPIES):
        matrices = [generator.standard_normal((width, width)).astype(np.float32) / width**0.5 for _ in "qkv"]
        names = [f"{part}{copy}" for part in "qkv"]
        wide = [(f"all{copy}", np.concatenate(matrices, 1))] if joined else list(zip(names, matrices, strict=True))
        for name, matrix in wide:
            made, stored = _FORMS[form](f"x{copy}", name, matrix)
            nodes += made
            weights += [numpy_helper.from_array(array, key) for key, array in stored.items()]
        if joined:
            nodes.append(helper.make_node("Split", [f"all{copy}"], names, axis=1, num_outputs=3))
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [tokens, width]) for name in names]
    graph = helper.make_graph(nodes, "projections", inputs, outputs, weights)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )


def _float(source: str, name: str, matrix: Any) -> tuple[list[Any], dict[str, Any]]:
    from onnx import helper

    return [helper.make_node("MatMul", [source, f"{name}.w"], [name])], {f"{name}.w": matrix}


def _int8(source: str, name: str, matrix: Any) -> tuple[list[Any], dict[str, Any]]:
    from onnx import TensorProto, helper

    scale = (np.abs(matrix).max(0) / 127).astype(np.float32)
    codes = np.round(matrix / scale).astype(np.int8)
    quantize = helper.make_node(
        "DynamicQuantizeLinear", [source], [f"{name}.c", f"{name}.s", f"{name}.z"], name=f"{name}.quantize"
    )
    product = [
        helper.make_node("MatMulInteger", [f"{name}.c", f"{name}.w", f"{name}.z"], [f"{name}.i"]),
        helper.make_node("Cast", [f"{name}.i"], [f"{name}.f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.s", f"{name}.scale"], [f"{name}.m"]),
        helper.make_node("Mul", [f"{name}.f", f"{name}.m"], [name]),
    ]
    return [quantize, *product], {f"{name}.w": codes, f"{name}.scale": scale}


_FORMS = {"fp32": _float, "int8": _int8}


if __name__ == "__main__":
    main()
