"""Normalisations: of hidden states behind the residual sum, and of what else is normalised."""

from evaluators.latency.workload import Operator, OperatorKind
from workers.targets.onnxruntime_graphs.draft import BUILDERS, GraphDraft


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
    simplified_norm(draft, total, operator.axis("features"))


def simplified_norm(draft: GraphDraft, x: str, features: int) -> None:
    """What the runtime makes of a root mean square; see `workers.export.onnx_rewrites`."""
    gain = draft.weight(draft.normal(features))
    draft.node("SimplifiedLayerNormalization", x, gain, axis=-1, epsilon=1e-6, stash_type=1)
