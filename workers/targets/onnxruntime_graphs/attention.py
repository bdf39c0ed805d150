"""What attention runs between its products: positions, rotations, scores and what they mix.

Shapes: B batch, S sequence, H heads, D head_dim.
"""

import numpy as np
from onnx import TensorProto

from evaluators.latency.workload import Operator, OperatorKind
from workers.export.onnx_rewrites import LEAST_SCORE
from workers.targets.onnxruntime_graphs.draft import BATCHED, BUILDERS, GraphDraft
from workers.targets.onnxruntime_graphs.norms import simplified_norm


@BUILDERS.register(OperatorKind.ATTENTION_CORE.value)
def _attention_core(draft: GraphDraft, operator: Operator) -> None:
    batch, sequence, heads, queries, head_dim = (
        operator.axis(a) for a in ("batch", "sequence", "heads", "queries", "head_dim")
    )

    def split(name: str, count: int, order: list[int]) -> str:
        """Input (B, S, H*D) as heads, with axes in the given order of (B, S, H, D)."""
        flat = draft.input(name, draft.normal(batch, sequence, count * head_dim), BATCHED)
        shape = draft.weight(np.array([batch, sequence, count, head_dim]))
        return draft.node("Transpose", *draft.node("Reshape", flat, shape), perm=order)[0]

    def repeat(name: str) -> str:
        """Give every key-value head to all its queries: (B, H, S, D) to (B, H*queries, S, D)."""
        if queries == 1:
            return name
        (wide,) = draft.node("Unsqueeze", name, draft.weight(np.array([2])))
        (wide,) = draft.node("Expand", wide, draft.weight(np.array([batch, heads, queries, sequence, head_dim])))
        return draft.node("Reshape", wide, draft.weight(np.array([batch, heads * queries, sequence, head_dim])))[0]

    query_BHSD = split("query", heads * queries, [0, 2, 1, 3])
    if queries == 1:
        key_BHDS = split("key", heads, [0, 2, 3, 1])
    else:
        (key_BHDS,) = draft.node("Transpose", repeat(split("key", heads, [0, 2, 1, 3])), perm=[0, 1, 3, 2])
    value_BHSD = repeat(split("value", heads, [0, 2, 1, 3]))
    (scores,) = draft.node("MatMul", query_BHSD, key_BHDS)
    (scores,) = draft.node("Mul", scores, draft.weight(np.array(head_dim**-0.5, np.float32)))
    causal = operator.function == "causal"
    seen = np.tri(sequence, dtype=np.bool_) if causal else np.ones((sequence, sequence), np.bool_)
    mask_BXSS = np.tile(np.where(seen, np.float32(0), np.finfo(np.float32).min), (batch, 1, 1, 1))
    (scores,) = draft.node("Add", scores, draft.input("mask", mask_BXSS, ["batch"]))
    if causal:
        (largest,) = draft.node("ReduceMax", scores, draft.weight(np.array([-1])), keepdims=1)
        (floor,) = draft.node("Sub", largest, draft.weight(np.array(LEAST_SCORE, np.float32)))
        (scores,) = draft.node("Max", scores, floor)
    (scores,) = draft.node("Softmax", scores, axis=-1)
    (mixed_BHSD,) = draft.node("MatMul", scores, value_BHSD)
    (mixed_BSHD,) = draft.node("Transpose", mixed_BHSD, perm=[0, 2, 1, 3])
    draft.node("Reshape", mixed_BSHD, draft.weight(np.array([batch, sequence, heads * queries * head_dim])))


@BUILDERS.register(OperatorKind.HEAD_NORM.value)
def _head_norm(draft: GraphDraft, operator: Operator) -> None:
    shape = tuple(operator.axis(axis) for axis in ("batch", "sequence", "heads", "head_dim"))
    simplified_norm(draft, draft.input("x", draft.normal(*shape), BATCHED), operator.axis("head_dim"))


@BUILDERS.register(OperatorKind.ROTARY.value)
def _rotary(draft: GraphDraft, operator: Operator) -> None:
    batch, sequence, heads, head_dim, columns = (
        operator.axis(axis) for axis in ("batch", "sequence", "heads", "head_dim", "columns")
    )
    # The kernel reads heads where a transposition has put them.
    heads_BHSD = draft.input("x", draft.normal(batch, heads, sequence, head_dim), ["batch"])
    angles = draft.normal(sequence, columns // 2)
    cosines, sines = draft.input("cosines", np.cos(angles), []), draft.input("sines", np.sin(angles), [])
    attributes = {"rotary_embedding_dim": columns, "num_heads": heads} if columns < head_dim else {}
    draft.node(
        "RotaryEmbedding",
        heads_BHSD,
        draft.weight(np.zeros(1, np.int64)),
        cosines,
        sines,
        domain="com.microsoft",
        interleaved=int(operator.function == "neighbours"),
        **attributes,
    )


@BUILDERS.register(OperatorKind.POSITIONS.value)
def _positions(draft: GraphDraft, operator: Operator) -> None:
    """The nodes of `workers.export.onnx_positions.causal_mask`, and those of cosines and sines."""
    batch, sequence, columns = (operator.axis(axis) for axis in ("batch", "sequence", "columns"))
    tokens = draft.input("attention_mask", np.ones((batch, sequence), np.int64), BATCHED)
    number = {n: draft.weight(np.array(n, np.int64)) for n in (0, 1)}
    vector = {n: draft.weight(np.array([n], np.int64)) for n in (0, 1)}
    (length,) = draft.node("Squeeze", *draft.node("Shape", tokens, start=1, end=2))
    (places,) = draft.node("Range", number[0], length, number[1])
    (earlier,) = draft.node("GreaterOrEqual", *_unsqueezed(draft, places, [1]), places)
    (padding,) = draft.node("Cast", *_unsqueezed(draft, tokens, [1, 2]), to=TensorProto.BOOL)
    (seen,) = draft.node("And", earlier, padding)
    low = draft.weight(np.array(np.finfo(np.float32).min))
    draft.node("Where", seen, draft.weight(np.array(0, np.float32)), low)
    (times,) = draft.node("Cast", *_unsqueezed(draft, places, [0, 2]), to=TensorProto.FLOAT)
    (angles,) = draft.node("Mul", times, draft.weight(np.abs(draft.normal(columns // 2))))
    (angles,) = draft.node("Concat", angles, angles, axis=-1)
    for function in ("Cos", "Sin"):
        (row,) = draft.node("Gather", *draft.node(function, angles), number[0], axis=0)
        draft.node("Slice", row, vector[0], draft.weight(np.array([columns // 2])), vector[1], vector[1])


def _unsqueezed(draft: GraphDraft, name: str, axes: list[int]) -> list[str]:
    return draft.node("Unsqueeze", name, draft.weight(np.array(axes, np.int64)))
