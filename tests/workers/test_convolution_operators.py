"""Operators of convolutional networks as ONNX graphs: they run, and int8 ones are what the export becomes."""

import numpy as np
import onnx
import pytest

from evaluators.latency.workload import Operator, OperatorKind
from workers.targets.copies import copies_of, weight_bytes
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu, open_session
from workers.targets.onnxruntime_graphs import build_graph

_MAP = {"batch": 2, "channels": 16, "height": 6, "width": 5}


def _convolution(name: str, **axes: int) -> Operator:
    sizes = {"batch": 2, "in_channels": 8, "out_channels": 16, "kernel": 3, "stride": 2, "height": 6, "width": 5}
    return Operator.of(OperatorKind.CONVOLUTION, format=name, function=None, **{**sizes, **axes})


OPERATORS = [
    _convolution("fp32"),
    _convolution("w8a8s"),
    _convolution("w8a8s", kernel=1, stride=1),
    *[
        Operator.of(OperatorKind.DEPTHWISE, format=name, function=None, kernel=3, stride=1, **_MAP)
        for name in ("fp32", "w8a8s")
    ],
    Operator.of(OperatorKind.STATIC_QUANTIZE, format=None, function=None, **_MAP),
    Operator.of(OperatorKind.DEQUANTIZE, format=None, function=None, **_MAP),
    Operator.of(OperatorKind.RESIDUAL_ADD, format="w8a8s", function=None, **_MAP),
]


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_an_operator_runs_and_takes_time(operator):
    times_ms = OnnxRuntimeCpu(1).sample(operator, runs=3, seed=0, working_set_bytes=0)
    assert len(times_ms) >= 3
    assert min(times_ms) > 0


@pytest.mark.parametrize("operator", OPERATORS[:5], ids=str)
def test_a_convolution_gives_the_places_that_its_axes_say(operator):
    model, feeds = build_graph(operator, copies=1, seed=0)
    proto = onnx.load_from_string(model)
    proto.graph.output.append(onnx.ValueInfoProto(name=proto.graph.node[0].output[0]))
    (_, found) = open_session(proto.SerializeToString(), threads=1).run(None, feeds)
    channels_last = operator.format == "w8a8s"
    assert found.shape == ((2, 6, 5, 16) if channels_last else (2, 16, 6, 5))
    assert found.dtype == (np.uint8 if channels_last else np.float32)


def test_weights_are_counted():
    assert weight_bytes(_convolution("fp32")) == 16 * 8 * 9 * 4
    assert weight_bytes(_convolution("w8a8s")) == 16 * (8 * 9 + 4)
    assert copies_of(_convolution("fp32")) == 16
    assert copies_of(_convolution("fp32", in_channels=512, out_channels=512, height=56, width=56)) == 2
