"""Scoring that text and image classification share. Shape letters: B batch, C classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import Example

if TYPE_CHECKING:
    import torch


class ClassificationScore:
    """Accuracy by example."""

    metric = "accuracy"
    right_or_wrong = True
    labelled = True
    byte_level = False

    def cut(self, text: str, *, max_length: int) -> Sequence[str] | None:
        """None: a text file has an input on each line."""
        return None

    def targets(self, examples: Sequence[Example]) -> torch.Tensor:
        """Class indices, shape (B,)."""
        import torch

        return torch.tensor([example.label for example in examples])

    def score(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """1 where the largest logit is the label's, else 0; NaN where a logit is NaN."""
        right_B = (logits_BC.argmax(-1) == labels_B).float()
        return right_B.masked_fill(logits_BC.isnan().any(-1), float("nan"))

    def chance(self, labels: Sequence[Any]) -> float:
        """Share of the commonest label."""
        return max(Counter(labels).values()) / len(labels)
