"""Rewrites of an exported graph after which ONNX Runtime runs its faster kernels; what is computed stays the same."""

from typing import Any


def rewrite_for_runtime(model: Any) -> None:
    """Apply all rewrites.

    Args:
        model: The exporter's intermediate representation, changed in place.
    """
    divide_by_root_mean_squares(model)
    keep_sums_apart(model)


def divide_by_root_mean_squares(model: Any) -> None:
    """Write the product with a reciprocal root as a division by the root.

    That is how ONNX Runtime knows root-mean-square normalisation: its seven nodes become one,
    SimplifiedLayerNormalization; see `benchmarks.layer_norm`.
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
