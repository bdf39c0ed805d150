"""torch-pruning by magnitude, then ONNX Runtime's dynamic int8: one after the other, as without a search.

Only feed-forward channels are pruned. By ratio torch-pruning cuts queries, keys and values of BERT inside their heads,
and the heads that the model then computes with are not the trained ones; feed-forward blocks it prunes correctly.
"""

from __future__ import annotations

import time

from torch import nn

from benchmarks.peers.contestant import Contestant, Side
from benchmarks.peers.material import Material, export_stock
from benchmarks.peers.onnxruntime_uniform import quantize_int8
from workers.model import load_model

PRUNED_SHARES = (0.125, 0.25, 0.5)
_PRUNED = "intermediate.dense"


def pruned_then_int8(material: Material) -> list[Contestant]:
    """Prune the feed-forward blocks at some ratios, without training, and quantize what is left."""
    return [_pruned(material, share) for share in PRUNED_SHARES]


def prune_feed_forward(model: nn.Module, inputs: dict[str, object], share: float) -> None:
    """Take the feed-forward channels of least magnitude out of a BERT, in place, the same share in each layer.

    Args:
        model: Classifier of transformers.
        inputs: A batch, to trace the model with.
        share: Share of the channels that goes, between 0 and 1.
    """
    import torch_pruning

    targets = {name: module for name, module in model.named_modules() if name.endswith(_PRUNED)}
    others = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n not in targets]
    model.requires_grad_(True)  # torch-pruning follows gradients to find what hangs together
    pruner = torch_pruning.pruner.BasePruner(
        model,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=share,
        ignored_layers=others,
        root_module_types=[nn.Linear],
        forward_fn=lambda traced, batch: traced(**batch).logits,
        output_transform=lambda logits: logits.sum(),
    )
    pruner.step()
    model.requires_grad_(False)


def _pruned(material: Material, share: float) -> Contestant:
    started = time.perf_counter()
    loaded = load_model(material.job.model)
    prune_feed_forward(loaded.model, dict(loaded.task.random_inputs(1, 8, seed=0)), share)
    dense = material.folder / "pruned.onnx"
    export_stock(loaded.model, loaded.task, dense)
    path = material.folder / f"torch-pruning-{share}-int8.onnx"
    quantize_int8(dense, path)
    return Contestant(
        name=f"torch-pruning {share:.1%} of channels, int8",
        side=Side.PEER,
        path=path,
        made_in_s=round(time.perf_counter() - started, 1),
        note="feed-forward channels only: it cuts the heads of BERT wrongly",
    )
