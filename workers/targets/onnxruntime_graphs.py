"""One operator as an ONNX graph: the nodes that an exported model holds for it, several times with other weights.

Shapes: B batch, S sequence, T tokens, K in_features, N out_features, H heads, D head_dim.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from evaluators.latency.workload import Operator, OperatorKind, activation_of
from search_spaces.formats import FORMATS, ActivationPrecision, Format
from search_spaces.registry import Registry
from workers.export.onnx_rewrites import LEAST_SCORE
from workers.targets.device import KernelError

Array = npt.NDArray[np.generic]
OPSET = 20
IR_VERSION = 10
MAX_DRAWN = 2**20
BATCHED = ["batch", "tokens"]
"""Leading dimensions are symbolic as in an exported model: what the runtime fuses depends on it."""


@dataclass(slots=True)
class GraphDraft:
    """Nodes, weights and inputs of a graph that grows.

    Args:
        generator: Source of weights and inputs.
    """

    generator: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: dict[str, tuple[Array, list[str | int]]] = field(default_factory=dict)

    def node(self, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: object) -> list[str]:
        """Add a node and return the names of its outputs."""
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, domain=domain, **attributes))
        return names

    def weight(self, value: Array) -> str:
        """Add an initializer and return its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def normal(self, *shape: int) -> Array:
        """Draw float32 values; a large tensor repeats the first ones, as no kernel's time depends on them."""
        size = math.prod(shape)
        return np.resize(self.generator.standard_normal(min(size, MAX_DRAWN), dtype=np.float32), shape)

    def codes(self, dtype: npt.DTypeLike, *shape: int) -> Array:
        """Draw integers of the type's whole range."""
        info = np.iinfo(dtype)
        return self.generator.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)

    def input(self, name: str, value: Array, leading: list[str]) -> str:
        """Declare an input once, its first dimensions symbolic, and return its name."""
        self.inputs.setdefault(name, (value, [*leading, *value.shape[len(leading) :]]))
        return name

    def hidden(self, operator: Operator, axis: str, name: str = "x") -> str:
        """Declare a float32 input of shape (1, T, axis)."""
        return self.input(name, self.normal(1, operator.axis("tokens"), operator.axis(axis)), BATCHED)

    def finish(self) -> tuple[bytes, dict[str, Array]]:
        """Serialise the graph and return it with its feeds.

        The only output is a scalar that passes through: the runtime runs nodes that nobody reads, and can then give
        their results' memory to the next node, as inside a model.
        """
        self.input("tick", np.zeros(1, np.float32), [])
        self.nodes.append(helper.make_node("Identity", ["tick"], ["tock"]))
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)
            for name, (value, shape) in self.inputs.items()
        ]
        output = helper.make_tensor_value_info("tock", TensorProto.FLOAT, [1])
        graph = helper.make_graph(self.nodes, "operator", inputs, [output], self.weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return model.SerializeToString(), {name: value for name, (value, _) in self.inputs.items()}


Build = Callable[[GraphDraft, Operator], None]
BUILDERS: Registry[Build] = Registry("ONNX Runtime operator")


def build_graph(operator: Operator | None, *, copies: int, seed: int) -> tuple[bytes, dict[str, Array]]:
    """Build a graph that runs an operator several times, side by side, with distinct weights.

    Args:
        operator: What to run; None gives the graph that measures the cost of a call alone.
        copies: How many times.
        seed: Seed of weights and inputs.

    Returns:
        The serialised model and its inputs.
    """
    draft = GraphDraft(np.random.default_rng(seed))
    if operator is not None:
        build = BUILDERS.get(operator.kind.value)
        for _ in range(copies):
            build(draft, operator)
    return draft.finish()


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


ACTIVATIONS: Registry[Callable[[GraphDraft, str], list[str]]] = Registry("activation function on ONNX Runtime")


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


@BUILDERS.register(OperatorKind.LAYER_NORM.value)
def _layer_norm(draft: GraphDraft, operator: Operator) -> None:
    features = operator.axis("features")
    # As in exported models; see `workers.export.onnx_rewrites.keep_sums_apart`.
    (total,) = draft.node("Sum", draft.hidden(operator, "features"), draft.hidden(operator, "features", "residual"))
    gain, bias = draft.weight(draft.normal(features)), draft.weight(draft.normal(features))
    draft.node("LayerNormalization", total, gain, bias, axis=-1, epsilon=1e-5)


@BUILDERS.register(OperatorKind.RMS_NORM.value)
def _rms_norm(draft: GraphDraft, operator: Operator) -> None:
    (total,) = draft.node("Add", draft.hidden(operator, "features"), draft.hidden(operator, "features", "residual"))
    _simplified_norm(draft, total, operator.axis("features"))


@BUILDERS.register(OperatorKind.HEAD_NORM.value)
def _head_norm(draft: GraphDraft, operator: Operator) -> None:
    shape = tuple(operator.axis(axis) for axis in ("batch", "sequence", "heads", "head_dim"))
    _simplified_norm(draft, draft.input("x", draft.normal(*shape), BATCHED), operator.axis("head_dim"))


def _simplified_norm(draft: GraphDraft, x: str, features: int) -> None:
    """What the runtime makes of a root mean square; see `workers.export.onnx_rewrites`."""
    gain = draft.weight(draft.normal(features))
    draft.node("SimplifiedLayerNormalization", x, gain, axis=-1, epsilon=1e-6, stash_type=1)


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


@BUILDERS.register(OperatorKind.CONVOLUTION.value, OperatorKind.DEPTHWISE.value)
def _convolution(draft: GraphDraft, operator: Operator) -> None:
    """Convolution over an input that gives the output's size without padding."""
    kernel, stride = operator.axis("kernel"), operator.axis("stride")
    height, width = ((operator.axis(a) - 1) * stride + kernel for a in ("height", "width"))
    depthwise = operator.kind is OperatorKind.DEPTHWISE
    out_channels = operator.axis("channels" if depthwise else "out_channels")
    in_channels = operator.axis("channels" if depthwise else "in_channels")
    shape = (out_channels, 1 if depthwise else in_channels, kernel, kernel)
    places: dict[str, Any] = {
        "strides": [stride, stride],
        "kernel_shape": [kernel, kernel],
        "pads": [0, 0, 0, 0],
        "group": out_channels if depthwise else 1,
    }
    image = (operator.axis("batch"), height, width, in_channels)
    if FORMATS.get(str(operator.format)).activation is ActivationPrecision.INT8_STATIC:
        _convolution_int8(draft, image, shape, places)
        return
    pixels = draft.input("pixels", np.ascontiguousarray(draft.normal(*image).transpose(0, 3, 1, 2)), ["batch"])
    draft.node("Conv", pixels, draft.weight(draft.normal(*shape)), draft.weight(draft.normal(out_channels)), **places)


def _convolution_int8(
    draft: GraphDraft, image: tuple[int, ...], shape: tuple[int, ...], places: dict[str, Any]
) -> None:
    """Codes in and out with channels last: what the runtime makes of QuantizeLinear and DequantizeLinear around."""
    codes = draft.input("codes", draft.codes(np.uint8, *image), ["batch"])
    draft.node(
        "QLinearConv",
        codes,
        draft.weight(np.array(0.02, np.float32)),
        draft.weight(np.array(0, np.uint8)),
        draft.weight(draft.codes(np.int8, *shape)),
        draft.weight(np.abs(draft.normal(shape[0])) + np.float32(1e-3)),
        draft.weight(np.zeros(shape[0], np.int8)),
        draft.weight(np.array(0.05, np.float32)),
        draft.weight(np.array(0, np.uint8)),
        draft.weight(draft.codes(np.int32, shape[0]) // 2**16),
        domain="com.microsoft",
        channels_last=1,
        **places,
    )


def _map(operator: Operator) -> tuple[int, ...]:
    return tuple(operator.axis(a) for a in ("batch", "channels", "height", "width"))


def _range(draft: GraphDraft) -> tuple[str, str]:
    return draft.weight(np.array(0.02, np.float32)), draft.weight(np.array(0, np.uint8))


@BUILDERS.register(OperatorKind.STATIC_QUANTIZE.value)
def _static_quantize(draft: GraphDraft, operator: Operator) -> None:
    pixels = draft.input("pixels", draft.normal(*_map(operator)), ["batch"])
    draft.node("QuantizeLinear", pixels, *_range(draft))


@BUILDERS.register(OperatorKind.DEQUANTIZE.value)
def _dequantize(draft: GraphDraft, operator: Operator) -> None:
    codes = draft.input("codes", draft.codes(np.uint8, *_map(operator)), ["batch"])
    (values,) = draft.node("DequantizeLinear", codes, *_range(draft))
    # The export clamps between codes and a float convolution; see OnnxFloatConvolution.
    limits = [draft.weight(np.array(sign * 3e38, np.float32)) for sign in (-1, 1)]
    draft.node("Clip", values, *limits)


@BUILDERS.register(OperatorKind.RESIDUAL_ADD.value)
def _residual_add(draft: GraphDraft, operator: Operator) -> None:
    """A sum of codes that rounds to codes; the clamp of the activation is in the output's range."""
    names = ("left", "right")
    left, right = (draft.input(n, draft.codes(np.uint8, *_map(operator)), ["batch"]) for n in names)
    draft.node("QLinearAdd", left, *_range(draft), right, *_range(draft), *_range(draft), domain="com.microsoft")
