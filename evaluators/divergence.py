"""How far a model's outputs are from the dense model's. Shape letters: C classes, M targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CHUNK_ELEMENTS = 2**25
"""Logits that are compared at once: copies of them are made on the way."""


def kl_divergence(reference_MC: torch.Tensor, logits_MC: torch.Tensor) -> float:
    """Mean divergence KL(reference || model) of two sets of logits of shape (M, C), in nats."""
    return float(kl_by_target(reference_MC, logits_MC).mean())


def kl_by_target(reference_MC: torch.Tensor, logits_MC: torch.Tensor) -> torch.Tensor:
    """Divergence KL(reference || model) of each target, in nats; float64 of shape (M,)."""
    import torch
    from torch.nn import functional

    rows = max(1, _CHUNK_ELEMENTS // logits_MC.shape[-1])
    parts = [
        functional.kl_div(
            functional.log_softmax(logits_MC[start : start + rows].double(), -1),
            functional.log_softmax(reference_MC[start : start + rows].double(), -1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        for start in range(0, len(logits_MC), rows)
    ]
    return torch.cat(parts)
