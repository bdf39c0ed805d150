"""Products with weight matrices and rounding of their inputs.

Shapes: K in_features, N out_features.
"""

import math

import numpy as np
from onnx import TensorProto

from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.formats import FORMATS, ActivationPrecision, Format
from workers.targets.device import KernelError
from workers.targets.onnxruntime_graphs.draft import BATCHED, BUILDERS, GraphDraft


@BUILDERS.register(OperatorKind.LINEAR.value)
def _linear(draft: GraphDraft, operator: Operator) -> None:
    number_format = FORMATS.get(str(operator.format))
    if not number_format.is_quantized and number_format.weight_bits == 32:
        weight_KN = draft.weight(draft.normal(operator.axis("in_features"), operator.axis("out_features")))
        (product,) = draft.node("MatMul", draft.hidden(operator, "in_features"), weight_KN)
        draft.node("Add", product, draft.weight(draft.normal(operator.axis("out_features"))))
    elif number_format.activation is ActivationPrecision.INT8_PER_TENSOR and number_format.weight_bits == 8:
        _linear_int8(draft, operator)
    elif number_format.activation is ActivationPrecision.INT8_PER_BLOCK and number_format.group_size:
        _linear_blocks(draft, operator, number_format)
    else:
        raise KernelError(
            f"a linear operator on ONNX Runtime is float32, int8 with dynamic activations or blocks of integers; "
            f"got {number_format}; take the format out of the target"
        )


def _linear_int8(draft: GraphDraft, operator: Operator) -> None:
    """Integer product of quantized activations and per-channel weights, rescaled: what `quantize` comes before."""
    tokens, in_features, out_features = (operator.axis(a) for a in ("tokens", "in_features", "out_features"))
    codes = draft.input("codes", draft.codes(np.uint8, 1, tokens, in_features), BATCHED)
    scale = draft.input("scale", np.array(0.02, np.float32), [])
    zero_point = draft.input("zero_point", np.array(128, np.uint8), [])
    weight_KN = draft.weight(draft.codes(np.int8, in_features, out_features))
    (product,) = draft.node("MatMulInteger", codes, weight_KN, zero_point)
    (product,) = draft.node("Cast", product, to=TensorProto.FLOAT)
    (scales,) = draft.node("Mul", scale, draft.weight(draft.normal(out_features)))
    (product,) = draft.node("Mul", product, scales)
    draft.node("Add", product, draft.weight(draft.normal(out_features)))


def _linear_blocks(draft: GraphDraft, operator: Operator, number_format: Format) -> None:
    """Weights in blocks of input columns, each with a scale; the kernel quantizes its input itself."""
    in_features, out_features = operator.axis("in_features"), operator.axis("out_features")
    bits, block = number_format.weight_bits, int(number_format.group_size or 0)
    blocks = math.ceil(in_features / block)
    zero_points = ""
    if not number_format.symmetric:
        zero_points = draft.weight(draft.codes(np.uint8, out_features * math.ceil(blocks * bits / 8)))
    draft.node(
        "MatMulNBits",
        draft.hidden(operator, "in_features"),
        draft.weight(draft.codes(np.uint8, out_features, blocks, block * bits // 8)),
        draft.weight(np.abs(draft.normal(out_features * blocks))),
        zero_points,
        "",
        draft.weight(draft.normal(out_features)),
        domain="com.microsoft",
        K=in_features,
        N=out_features,
        bits=bits,
        block_size=block,
        accuracy_level=4,
    )


@BUILDERS.register(OperatorKind.QUANTIZE.value)
def _quantize(draft: GraphDraft, operator: Operator) -> None:
    draft.node("DynamicQuantizeLinear", draft.hidden(operator, "features"), outputs=3)
