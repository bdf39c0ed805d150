"""One operator of each kind that torch runs, small."""

from evaluators.latency.workload import Operator, OperatorKind

MAP = {"batch": 1, "height": 6, "width": 6}
_LINEAR = {"tokens": 5, "in_features": 24, "out_features": 16}
_HEADS = {"batch": 2, "sequence": 5, "heads": 2, "head_dim": 8}
FLOAT = (
    Operator.of(OperatorKind.LINEAR, format="fp32", **_LINEAR),
    Operator.of(OperatorKind.LINEAR, format="bf16", **_LINEAR),
    Operator.of(OperatorKind.ATTENTION_CORE, queries=1, **_HEADS),
    Operator.of(OperatorKind.ATTENTION_CORE, queries=3, **_HEADS),
    Operator.of(OperatorKind.ATTENTION_CORE, function="causal", queries=1, **_HEADS),
    Operator.of(OperatorKind.HEAD_NORM, **_HEADS),
    Operator.of(OperatorKind.ROTARY, function="halves", columns=8, **_HEADS),
    Operator.of(OperatorKind.ROTARY, function="neighbours", columns=4, **_HEADS),
    Operator.of(OperatorKind.POSITIONS, batch=2, sequence=5, columns=8),
    Operator.of(OperatorKind.ACTIVATION, function="gelu", tokens=5, features=24),
    Operator.of(OperatorKind.ACTIVATION, function="gated_silu", tokens=5, features=24),
    Operator.of(OperatorKind.ACTIVATION, function="joined_gated_silu", tokens=5, features=24),
    Operator.of(OperatorKind.LAYER_NORM, tokens=5, features=24),
    Operator.of(OperatorKind.RMS_NORM, tokens=5, features=24),
    Operator.of(OperatorKind.EMBEDDING, tokens=5, rows=30, features=24),
    Operator.of(OperatorKind.EMBEDDING, format="w8", tokens=5, rows=30, features=24),
    Operator.of(OperatorKind.CONVOLUTION, format="fp32", in_channels=3, out_channels=8, kernel=3, stride=2, **MAP),
    Operator.of(OperatorKind.DEPTHWISE, format="fp32", channels=8, kernel=3, stride=1, **MAP),
)
INT8 = (
    Operator.of(OperatorKind.LINEAR, format="w8a8", **_LINEAR),
    Operator.of(OperatorKind.QUANTIZE, tokens=5, features=24),
)
"""Need a CPU with products of int8."""
