"""Convolutions and what stands between them."""

from typing import Any

import numpy as np

from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.formats import FORMATS, ActivationPrecision
from workers.targets.onnxruntime_graphs.draft import BUILDERS, GraphDraft


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


def _map(operator: Operator) -> tuple[int, ...]:
    return tuple(operator.axis(a) for a in ("batch", "channels", "height", "width"))


def _range(draft: GraphDraft) -> tuple[str, str]:
    return draft.weight(np.array(0.02, np.float32)), draft.weight(np.array(0, np.uint8))
