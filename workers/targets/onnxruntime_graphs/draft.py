"""An ONNX graph that grows, and the registry of what can be drawn into it.

Shapes: T tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from evaluators.latency.workload import Operator
from search_spaces.registry import Registry

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
