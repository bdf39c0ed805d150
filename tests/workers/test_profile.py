from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from evaluators.latency.workload import Operator, OperatorKind
from workers.targets.copies import copies_of
from workers.targets.device import KernelError
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu, open_session, time_runs
from workers.targets.onnxruntime_graphs import build_graph


def test_wider_layers_take_longer() -> None:
    device = OnnxRuntimeCpu(1)
    times = [
        np.median(device.sample(_linear("fp32", 256, width), runs=15, seed=0, working_set_bytes=0))
        for width in (64, 1024)
    ]
    assert times[1] > 4 * times[0]


def _linear(name: str, in_features: int, out_features: int) -> Operator:
    return Operator.of(OperatorKind.LINEAR, format=name, tokens=17, in_features=in_features, out_features=out_features)


def _activation(name: str) -> Operator:
    return Operator.of(OperatorKind.ACTIVATION, function=name, tokens=4, features=24)


_HEADS = {"batch": 2, "sequence": 5, "heads": 3}
KERNELS = [
    (_linear("fp32", 64, 48), {"MatMul": 2, "Add": 2}),
    (_linear("w8a8", 64, 48), {"MatMulIntegerToFloat": 2}),
    (_linear("w4", 72, 48), {"MatMulNBits": 2}),
    (_linear("w4g128", 8, 48), {"MatMulNBits": 2}),
    (Operator.of(OperatorKind.QUANTIZE, tokens=4, features=24), {"DynamicQuantizeLinear": 2}),
    (Operator.of(OperatorKind.LAYER_NORM, tokens=4, features=24), {"Sum": 2, "LayerNormalization": 2}),
    (Operator.of(OperatorKind.RMS_NORM, tokens=4, features=24), {"Add": 2, "SimplifiedLayerNormalization": 2}),
    (Operator.of(OperatorKind.HEAD_NORM, head_dim=8, **_HEADS), {"SimplifiedLayerNormalization": 2}),
    (Operator.of(OperatorKind.ROTARY, function="halves", head_dim=8, columns=8, **_HEADS), {"RotaryEmbedding": 2}),
    (Operator.of(OperatorKind.ROTARY, function="neighbours", head_dim=8, columns=4, **_HEADS), {"RotaryEmbedding": 2}),
    (
        Operator.of(OperatorKind.POSITIONS, batch=2, sequence=5, columns=8),
        dict.fromkeys(("Shape", "Squeeze", "Range", "GreaterOrEqual", "And", "Where", "Mul", "Concat"), 2)
        | {"Cos": 2, "Sin": 2, "Cast": 4, "Gather": 4, "Slice": 4, "Unsqueeze": 6},
    ),
    (_activation("gelu"), {"Gelu": 2}),
    (_activation("gelu_new"), {"Gelu": 2}),
    (_activation("relu"), {"Relu": 2}),
    (_activation("silu"), {"QuickGelu": 2}),
    (_activation("quick_gelu"), {"QuickGelu": 2}),
    (_activation("gated_silu"), {"QuickGelu": 2, "Mul": 2}),
    (_activation("joined_gated_silu"), {"Split": 2, "QuickGelu": 2, "Mul": 2}),
    (Operator.of(OperatorKind.EMBEDDING, tokens=4, rows=9, features=24), {"Gather": 2}),
    (
        Operator.of(
            OperatorKind.CONVOLUTION,
            batch=2,
            in_channels=3,
            out_channels=8,
            kernel=4,
            stride=4,
            height=4,
            width=4,
            format="fp32",
        ),
        {"Conv": 2},
    ),
    (
        Operator.of(OperatorKind.ATTENTION_CORE, batch=2, sequence=5, heads=3, queries=1, head_dim=8),
        {"FusedMatMul": 2, "Softmax": 2, "MatMul": 2, "Add": 2, "Reshape": 8, "Transpose": 8},
    ),
    (
        Operator.of(OperatorKind.ATTENTION_CORE, function="causal", queries=1, head_dim=8, **_HEADS),
        {"FusedMatMul": 2, "Softmax": 2, "MatMul": 2, "Add": 2, "Reshape": 8, "Transpose": 8}
        | {"ReduceMax": 2, "Sub": 2, "Max": 2},
    ),
    (
        Operator.of(OperatorKind.ATTENTION_CORE, queries=2, head_dim=8, **_HEADS),
        {"FusedMatMul": 2, "Softmax": 2, "MatMul": 2, "Add": 2, "Reshape": 12, "Transpose": 8, "Unsqueeze": 4}
        | {"Expand": 4},
    ),
]


@pytest.mark.parametrize(("operator", "kernels"), KERNELS, ids=lambda value: str(value)[:40])
def test_an_operator_runs_the_kernels_of_the_exported_model(operator, kernels, tmp_path) -> None:
    import onnxruntime

    model, feeds = build_graph(operator, copies=2, seed=0)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["CommonSubexpressionElimination"]
    )
    session.run(None, feeds)
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert nodes == {**kernels, "Identity": 1}


def test_nodes_that_nobody_reads_are_run() -> None:
    one, many = (build_graph(_linear("fp32", 256, 512), copies=copies, seed=0) for copies in (1, 16))
    times = [np.median(time_runs(open_session(model, threads=1), feeds, runs=30)) for model, feeds in (one, many)]
    assert times[1] > 5 * times[0]


@pytest.mark.parametrize("queries", [1, 2])
def test_the_attention_core_computes_attention(queries: int) -> None:
    """The last node's result, against the definition."""
    batch, sequence, heads, head_dim = 2, 5, 3, 4
    operator = Operator.of(
        OperatorKind.ATTENTION_CORE, batch=batch, sequence=sequence, heads=heads, queries=queries, head_dim=head_dim
    )
    model, feeds = build_graph(operator, copies=1, seed=0)
    proto = onnx.load_from_string(model)
    name = proto.graph.node[-2].output[0]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    _, got = open_session(proto.SerializeToString(), threads=1).run(None, feeds)
    query, key, value = (feeds[n].reshape(batch, sequence, -1, head_dim) for n in ("query", "key", "value"))
    expected = np.empty_like(query)
    for head in range(heads * queries):
        for row in range(batch):
            scores = query[row, :, head] @ key[row, :, head // queries].T / head_dim**0.5
            weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            expected[row, :, head] = weights @ value[row, :, head // queries]
    np.testing.assert_allclose(got, expected.reshape(batch, sequence, -1), atol=1e-5)


def test_a_causal_core_attends_to_earlier_tokens_alone() -> None:
    batch, sequence, heads, head_dim = 2, 5, 3, 4
    axes = {"batch": batch, "sequence": sequence, "heads": heads, "queries": 1, "head_dim": head_dim}
    model, feeds = build_graph(Operator.of(OperatorKind.ATTENTION_CORE, function="causal", **axes), copies=1, seed=0)
    proto = onnx.load_from_string(model)
    name = proto.graph.node[-2].output[0]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    _, got = open_session(proto.SerializeToString(), threads=1).run(None, feeds)
    query, key, value = (
        torch.from_numpy(feeds[n]).view(batch, sequence, heads, head_dim).transpose(1, 2)
        for n in ("query", "key", "value")
    )
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    np.testing.assert_allclose(got, expected.transpose(1, 2).reshape(batch, sequence, -1).numpy(), atol=1e-5)


def test_a_format_without_a_kernel_is_refused() -> None:
    with pytest.raises(KernelError, match=r"a linear operator on ONNX Runtime is .* got Format\(name='bf16'"):
        build_graph(_linear("bf16", 8, 8), copies=1, seed=0)


def test_an_unknown_activation_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown activation function on ONNX Runtime 'mish'; supported: gelu"):
        build_graph(_activation("mish"), copies=1, seed=0)


def test_copies_are_fewer_where_weights_or_work_are_large() -> None:
    assert copies_of(_linear("fp32", 64, 64)) == 16
    assert 2 <= copies_of(_linear("fp32", 1024, 1024)) < 16
    assert copies_of(_linear("fp32", 8192, 8192)) == 2
    assert copies_of(_linear("fp32", 64, 64), 2**16) == 4
    assert copies_of(Operator.of(OperatorKind.EMBEDDING, tokens=4, rows=100_000, features=512)) == 1


def test_copies_fill_a_working_set_within_reason() -> None:
    product = _linear("fp32", 384, 384)
    weight = 4 * 384 * 384
    for copies in (5, 20, 60):
        assert copies_of(product, copies * weight, fill=True) == copies
    assert copies_of(product, 2**30, fill=True) == 64
    assert copies_of(_linear("fp32", 4096, 4096), 2**30, fill=True) == 2
    norm = Operator.of(OperatorKind.LAYER_NORM, tokens=8, features=64)
    assert copies_of(norm, 2**30, fill=True) == copies_of(norm)


def test_the_fingerprint_tells_the_cpu_and_the_runtime() -> None:
    here = OnnxRuntimeCpu(2).fingerprint()
    assert here.device
    assert here.runtime == "onnxruntime"
    assert here.threads == 2
    assert list(here.flags) == sorted(set(here.flags))
