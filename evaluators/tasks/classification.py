"""Scoring that text and image classification share. Shape letters: B batch, C classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class ClassificationScore:
    """Accuracy by example."""

    metric = "accuracy"

    def score(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """1 where the largest logit is the label's, else 0; NaN where a logit is NaN."""
        right_B = (logits_BC.argmax(-1) == labels_B).float()
        return right_B.masked_fill(logits_BC.isnan().any(-1), float("nan"))

    def chance(self, labels: Sequence[int]) -> float:
        """Share of the commonest label."""
        return max(Counter(labels).values()) / len(labels)
