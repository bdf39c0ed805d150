"""Ratings of texts: ordered classes, where a near miss is better than a far one. Shape letters: B batch, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import TASKS
from evaluators.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    import torch


class TextRating(TextClassification):
    """One text in, one of the classes 0 to C - 1 out, such as one to five stars."""

    metric = "closeness"
    right_or_wrong = False

    def score(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """1 where the largest logit is the label's, 0 at the other end of the scale; NaN where a logit is NaN."""
        steps = max(1, logits_BC.shape[-1] - 1)
        closeness_B = 1 - (logits_BC.argmax(-1) - labels_B).abs().float() / steps
        return closeness_B.masked_fill(logits_BC.isnan().any(-1), float("nan"))

    def chance(self, labels: Sequence[Any]) -> float:
        """Closeness of the best constant rating."""
        classes = self._config.num_labels
        misses = (sum(abs(rating - int(label)) for label in labels) for rating in range(classes))
        return 1 - min(misses) / (len(labels) * max(1, classes - 1))


TASKS.register("text-rating")(TextRating)
