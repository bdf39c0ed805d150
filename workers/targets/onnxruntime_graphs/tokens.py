"""What works on each token by itself: activation functions and tables of embeddings."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from evaluators.latency.workload import Operator, OperatorKind, activation_of
from search_spaces.registry import Registry
from workers.targets.onnxruntime_graphs.draft import BATCHED, BUILDERS, GraphDraft

ACTIVATIONS: Registry[Callable[[GraphDraft, str], list[str]]] = Registry("activation function on ONNX Runtime")


@BUILDERS.register(OperatorKind.ACTIVATION.value)
def _activation(draft: GraphDraft, operator: Operator) -> None:
    name, gated, joined = activation_of(operator)
    if joined:
        both = draft.input("both", draft.normal(1, operator.axis("tokens"), 2 * operator.axis("features")), BATCHED)
        value, gate = draft.node("Split", both, outputs=2, axis=-1, num_outputs=2)
    else:
        value = draft.hidden(operator, "features")
        gate = draft.hidden(operator, "features", "gated") if gated else ""
    (result,) = ACTIVATIONS.get(name)(draft, value)
    if gated:
        draft.node("Mul", gate, result)


@ACTIVATIONS.register("gelu", "gelu_python")
def _gelu(draft: GraphDraft, x: str) -> list[str]:
    return draft.node("Gelu", x)


@ACTIVATIONS.register("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_tanh")
def _gelu_tanh(draft: GraphDraft, x: str) -> list[str]:
    return draft.node("Gelu", x, approximate="tanh")


@ACTIVATIONS.register("quick_gelu")
def _quick_gelu(draft: GraphDraft, x: str) -> list[str]:
    (steep,) = draft.node("Mul", x, draft.weight(np.array(1.702, np.float32)))
    return draft.node("Mul", x, *draft.node("Sigmoid", steep))


@ACTIVATIONS.register("relu")
def _relu(draft: GraphDraft, x: str) -> list[str]:
    return draft.node("Relu", x)


@ACTIVATIONS.register("silu", "swish")
def _silu(draft: GraphDraft, x: str) -> list[str]:
    return draft.node("Mul", x, *draft.node("Sigmoid", x))


@BUILDERS.register(OperatorKind.EMBEDDING.value)
def _embedding(draft: GraphDraft, operator: Operator) -> None:
    rows, features = operator.axis("rows"), operator.axis("features")
    ids = draft.input("ids", draft.generator.integers(0, rows, (1, operator.axis("tokens"))), BATCHED)
    if operator.format is None:
        draft.node("Gather", draft.weight(draft.normal(rows, features)), ids)
        return
    (codes,) = draft.node("Gather", draft.weight(draft.codes(np.int8, rows, features)), ids)
    (scales,) = draft.node("Gather", draft.weight(draft.normal(rows, 1)), ids)
    (values,) = draft.node("Cast", codes, to=TensorProto.FLOAT)
    draft.node("Mul", values, scales)
