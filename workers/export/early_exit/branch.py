"""One ONNX file with an early exit: what follows the exit stands in a branch that runs only for those who stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

LOGITS = "logits"
"""Output: the logits, of the exit or of the whole model."""
LEFT_EARLY = "left_early"
"""Output: whether the call left at the exit; a boolean without axes."""
EXIT_LOGITS = "exit_logits"
TRACED_OUTPUTS = (LOGITS, EXIT_LOGITS, LEFT_EARLY)
"""Outputs of the graph that is cut, in the order of `ExitingModel`."""


def branch_at_exit(model: Any) -> None:
    """Move all nodes that only the whole model's logits need into the branch of an `If` node.

    The branch reads what comes before from the graph around it; weights go along with the nodes that read them.

    Args:
        model: `onnx.ModelProto` with `TRACED_OUTPUTS`, changed in place; its outputs are then `LOGITS` and
            `LEFT_EARLY`.
    """
    from onnx import helper

    graph = model.graph
    by_name = {output.name: output for output in graph.output}
    early = _needed_for((EXIT_LOGITS, LEFT_EARLY), graph.node)
    before = [node for place, node in enumerate(graph.node) if place in early]
    after = [node for place, node in enumerate(graph.node) if place not in early]
    read_before = {name for node in before for name in node.input}
    moved = [tensor for tensor in graph.initializer if tensor.name not in read_before]
    kept = [tensor for tensor in graph.initializer if tensor.name in read_before]
    whole = helper.make_graph(after, "whole", [], [_output(by_name[LOGITS], LOGITS)], initializer=moved)
    _rename(whole, LOGITS, f"whole_{LOGITS}")
    leaving = helper.make_node("Identity", [EXIT_LOGITS], [f"leaving_{LOGITS}"], name="leave")
    leave = helper.make_graph([leaving], "leave", [], [_output(by_name[LOGITS], f"leaving_{LOGITS}")])
    branch = helper.make_node("If", [LEFT_EARLY], [LOGITS], name="early_exit", then_branch=leave, else_branch=whole)
    outputs = [_output(by_name[LOGITS], LOGITS), _output(by_name[LEFT_EARLY], LEFT_EARLY)]
    for field, values in (
        (graph.node, [*before, branch]),
        (graph.initializer, kept),
        (graph.output, outputs),
        (graph.value_info, []),
    ):
        del field[:]
        field.extend(values)


def graphs_of(graph: Any) -> Iterable[Any]:
    """Yield a graph (`onnx.GraphProto`) and those of all branches in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def _needed_for(names: Iterable[str], nodes: Sequence[Any]) -> set[int]:
    """Places of the nodes that some values depend on; nodes stand behind those that they read from."""
    wanted, found = set(names), set()
    for place in reversed(range(len(nodes))):
        if wanted.intersection(nodes[place].output):
            found.add(place)
            wanted.update(nodes[place].input)
    return found


def _output(like: Any, name: str) -> Any:
    from onnx import ValueInfoProto

    value = ValueInfoProto()
    value.CopyFrom(like)
    value.name = name
    return value


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            for place, name in enumerate(field):
                if name == old:
                    field[place] = new
    for value in graph.output:
        if value.name == old:
            value.name = new
