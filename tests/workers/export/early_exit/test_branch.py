"""A graph that is cut at an exit answers as before, and runs only the side that is asked for."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workers.export.early_exit.branch import branch_at_exit, graphs_of
from workers.targets.onnxruntime_cpu import open_session

GENERATOR = np.random.default_rng(0)
WEIGHTS = {name: GENERATOR.standard_normal((4, 4)).astype(np.float32) for name in ("before", "exit", "after", "shared")}


def flat_model():
    """x -> hidden -> exit_logits, and hidden -> logits; both sides read the weight `shared`."""
    nodes = [
        helper.make_node("MatMul", ["x", "before"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "after"], ["later"]),
        helper.make_node("MatMul", ["hidden", "exit"], ["exit_sum"]),
        helper.make_node("MatMul", ["exit_sum", "shared"], ["exit_logits"]),
        helper.make_node("MatMul", ["later", "shared"], ["logits"]),
        helper.make_node("ReduceMax", ["exit_logits"], ["largest"], keepdims=0),
        helper.make_node("LessOrEqual", ["largest", "limit"], ["left_early"]),
    ]
    shape = ["batch", 4]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("logits", "exit_logits")]
    outputs.append(helper.make_tensor_value_info("left_early", TensorProto.BOOL, []))
    tensors = [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    tensors.append(numpy_helper.from_array(np.float32(4.0), "limit"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "flat", inputs, outputs, initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_both_sides_answer_as_before():
    flat, cut = flat_model(), flat_model()
    branch_at_exit(cut)
    onnx.checker.check_model(cut, full_check=True)
    sessions = [open_session(model.SerializeToString(), threads=1) for model in (flat, cut)]
    left = set()
    for _ in range(20):
        x = GENERATOR.standard_normal((2, 4)).astype(np.float32)
        logits, exit_logits, leaves = sessions[0].run(["logits", "exit_logits", "left_early"], {"x": x})
        answer, left_early = sessions[1].run(None, {"x": x})
        assert left_early == leaves
        np.testing.assert_allclose(answer, exit_logits if leaves else logits, rtol=1e-5)
        left.add(bool(leaves))
    assert left == {False, True}


def test_what_only_the_whole_needs_lies_in_the_branch():
    cut = flat_model()
    branch_at_exit(cut)
    outer, whole, leave = graphs_of(cut.graph)
    assert [output.name for output in outer.output] == ["logits", "left_early"]
    assert {tensor.name for tensor in outer.initializer} == {"before", "exit", "shared", "limit"}
    assert {tensor.name for tensor in whole.initializer} == {"after"}
    assert [node.op_type for node in leave.node] == ["Identity"]
    assert [list(node.output) for node in whole.node] == [["later"], ["whole_logits"]]
    assert [node.op_type for node in outer.node][-1] == "If"
    assert sum(node.op_type == "MatMul" for node in outer.node) == 3
