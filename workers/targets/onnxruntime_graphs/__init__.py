"""One operator as an ONNX graph: the nodes that an exported model holds for it, several times with other weights."""

import numpy as np

from evaluators.latency.workload import Operator
from workers.targets.onnxruntime_graphs import attention, feature_maps, linear, norms, tokens  # noqa: F401 (register)
from workers.targets.onnxruntime_graphs.draft import BUILDERS, Array, GraphDraft


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
