"""How far a model's outputs are from the dense model's. Shape letters: C classes, M targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_Compare = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
_CHUNK_ELEMENTS = 2**25
"""Logits that are compared at once: copies of them are made on the way."""


def kl_divergence(reference_MC: torch.Tensor, logits_MC: torch.Tensor) -> float:
    """Mean divergence KL(reference || model) of two sets of logits of shape (M, C), in nats."""
    return float(kl_by_target(reference_MC, logits_MC).mean())


def kl_by_target(reference_MC: torch.Tensor, logits_MC: torch.Tensor) -> torch.Tensor:
    """Divergence KL(reference || model) of each target, in nats; float64 of shape (M,)."""
    from torch.nn import functional

    def compare(reference_TC: torch.Tensor, logits_TC: torch.Tensor) -> torch.Tensor:
        model_TC, dense_TC = functional.log_softmax(logits_TC, -1), functional.log_softmax(reference_TC, -1)
        return functional.kl_div(model_TC, dense_TC, reduction="none", log_target=True).sum(-1)

    return in_chunks(compare, reference_MC, logits_MC)


def overlap_by_target(reference_MC: torch.Tensor, logits_MC: torch.Tensor) -> torch.Tensor:
    """Overlap of the two output distributions of each target: the sum over classes of the smaller probability.

    It is 1 less their total variation distance: no answer, and no set of answers, is likelier under one of them than
    under the other by more than 1 - overlap.

    Args:
        reference_MC: Logits of the dense model.
        logits_MC: Logits of the other model.

    Returns:
        float64 of shape (M,), 0 to 1, exactly 1 where the logits are equal; NaN where a logit is NaN.

    Reference:
        Levin and Peres, Markov Chains and Mixing Times (2nd edition, 2017), proposition 4.2 and remark 4.3 for the
        forms of the distance, proposition 4.7 for the overlap.
    """

    def compare(reference_TC: torch.Tensor, logits_TC: torch.Tensor) -> torch.Tensor:
        distance_T = (reference_TC.softmax(-1) - logits_TC.softmax(-1)).abs().sum(-1) / 2
        return (1 - distance_T).clamp(0, 1)

    return in_chunks(compare, reference_MC, logits_MC)


def constant_overlap(reference_MC: torch.Tensor) -> float:
    """Mean overlap of the dense outputs with the one distribution that overlaps them most: what guessing reaches.

    The overlap with a constant q is a sum over classes of concave functions of q_c, whose slope is the share of targets
    that give class c more than q_c. The best q takes from all classes the steepest pieces first until it adds up to 1.
    Pieces of one slope are those up to the k-th smallest probability of each class, so the best overlap is the mean
    over k of what these probabilities add up to, but 1 at most.

    Args:
        reference_MC: Logits of the dense model.

    Returns:
        Above 0 to 1; 1 where all outputs are alike.
    """
    import torch

    targets, classes = reference_MC.shape
    probabilities_MC = reference_MC.softmax(-1)
    sums_M = torch.zeros(targets, dtype=torch.float64, device=reference_MC.device)
    columns = max(1, _CHUNK_ELEMENTS // targets)
    for start in range(0, classes, columns):
        sums_M += probabilities_MC[:, start : start + columns].double().sort(dim=0).values.sum(1)
    return float(sums_M.clamp(max=1).mean())


def mean_by_row(value_M: torch.Tensor, row_M: torch.Tensor, rows: int) -> torch.Tensor:
    """Mean of the values of each row, float64 of shape (rows,); NaN where a row has none."""
    import torch

    sums = torch.zeros(rows, dtype=torch.float64).index_add_(0, row_M, value_M.double())
    return sums / torch.bincount(row_M, minlength=rows)


def in_chunks(compare: _Compare, reference_MC: torch.Tensor, logits_MC: torch.Tensor) -> torch.Tensor:
    """Compare some targets at a time, in double precision."""
    import torch

    rows = max(1, _CHUNK_ELEMENTS // logits_MC.shape[-1])
    parts = [
        compare(reference_MC[start : start + rows].double(), logits_MC[start : start + rows].double())
        for start in range(0, len(logits_MC), rows)
    ]
    return torch.cat(parts)
