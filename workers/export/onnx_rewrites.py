"""Rewrites of an exported graph after which ONNX Runtime runs faster; what is computed stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

LEAST_SCORE = 64.0
"""How far below the largest score of its row a masked one is: its weight, e to the minus 64, is 0 beside a float32."""
_COMPARISONS = frozenset({"GreaterOrEqual", "LessOrEqual", "Greater", "Less"})
_ENDS = frozenset({"MatMul", "Softmax", "MatMulInteger", "Gather", *_COMPARISONS})


def rewrite_for_runtime(model: Any) -> None:
    """Apply all rewrites.

    Args:
        model: The exporter's intermediate representation, changed in place.
    """
    divide_by_root_mean_squares(model)
    bound_masked_scores(model)
    keep_sums_apart(model)


def divide_by_root_mean_squares(model: Any) -> None:
    """Write the product with a reciprocal root as a division by the root.

    That is how ONNX Runtime knows root-mean-square normalisation: its seven nodes become one,
    SimplifiedLayerNormalization; see `benchmarks.decoder_kernels`.
    """
    for node in list(model.graph.all_nodes()):
        found = _reciprocal_root(node)
        if found is None:
            continue
        place, reciprocal = found
        value = node.inputs[1 - place]
        node.op_type = "Div"
        node.replace_input_with(0, value)
        node.replace_input_with(1, reciprocal.inputs[0])
        if not list(reciprocal.outputs[0].uses()):
            reciprocal.graph.remove(reciprocal, safe=True)


def bound_masked_scores(model: Any) -> None:
    """Raise the scores that a causal mask lowered to `LEAST_SCORE` below the largest one of their row.

    Softmax takes several times as long where numbers are so low that their exponentials are no normal float32 any more,
    and half of a causal mask's are; see `benchmarks.decoder_kernels`. Rows that are masked whole keep equal scores.
    """
    import onnx_ir as ir

    for node in list(model.graph.all_nodes()):
        if node.op_type != "Softmax" or not _is_masked_by_comparison(node.inputs[0]):
            continue
        axis = node.attributes["axis"].as_int()
        axes, least = (
            ir.node("Constant", [], {"value": ir.tensor(value)})
            for value in (np.array([axis], np.int64), np.array(LEAST_SCORE, np.float32))
        )
        largest = ir.node("ReduceMax", [node.inputs[0], axes.outputs[0]], {"keepdims": 1})
        floor = ir.node("Sub", [largest.outputs[0], least.outputs[0]])
        bounded = ir.node("Max", [node.inputs[0], floor.outputs[0]])
        node.graph.insert_before(node, [axes, least, largest, floor, bounded])
        node.replace_input_with(0, bounded.outputs[0])


def keep_sums_apart(model: Any) -> None:
    """Write residual additions in front of layer normalisations as `Sum`, which ONNX Runtime does not fuse with them.

    Its fused kernel, SkipLayerNormalization, takes several times as long on a CPU as the two apart: see
    `benchmarks.layer_norm`.
    """
    for node in model.graph.all_nodes():
        if node.op_type == "LayerNormalization":
            producer = node.inputs[0].producer()
            if producer is not None and producer.op_type == "Add" and producer.domain == "":
                producer.op_type = "Sum"


def _reciprocal_root(node: Any) -> tuple[int, Any] | None:
    """Which input of a product is 1/sqrt, and the node that makes it."""
    if node.op_type != "Mul" or node.domain:
        return None
    for place, value in enumerate(node.inputs):
        producer = value.producer()
        if producer is not None and producer.op_type == "Reciprocal":
            root = producer.inputs[0].producer()
            if root is not None and root.op_type == "Sqrt":
                return place, producer
    return None


def _is_masked_by_comparison(scores: Any) -> bool:
    """Whether scores are a sum with a mask that a comparison of positions decides."""
    total = scores.producer()
    if total is None or total.op_type != "Add":
        return False
    return any(
        any(_compares_positions(node) for node in _ancestors(choice.inputs[0]))
        for value in total.inputs
        for choice in _ancestors(value)
        if choice.op_type == "Where"
    )


def _compares_positions(node: Any) -> bool:
    """Whether a node compares two computed values; with a constant transformers compares where nothing is causal."""
    producers = [value.producer() for value in node.inputs]
    return node.op_type in _COMPARISONS and all(p is not None and p.op_type != "Constant" for p in producers)


def _ancestors(value: Any) -> Iterator[Any]:
    """Nodes that a value comes from, as far as the next product, comparison or table."""
    waiting, seen = [value], set()
    while waiting:
        node = None if (latest := waiting.pop()) is None else latest.producer()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if node.op_type not in _ENDS:
            waiting.extend(node.inputs)
