"""Text classification. Shape letters: B batch, S sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import TASKS, Example, class_index, longest_input
from evaluators.tasks.classification import ClassificationScore
from evaluators.tasks.text_inputs import TextInputs

if TYPE_CHECKING:
    import torch


class TextClassification(TextInputs, ClassificationScore):
    """One text in, one class out."""

    auto_model = "AutoModelForSequenceClassification"

    def encode(self, inputs: Sequence[Any], labels: Sequence[Any], *, max_length: int) -> list[Example]:
        """Tokenize texts, cut at `max_length` tokens or at what the model takes, whichever is less."""
        texts = self.tokenize(inputs, longest=longest_input(self._config, max_length))
        indices = [class_index(label, self._config, row=row) for row, label in enumerate(labels)]
        return [
            Example(inputs=tensors, label=index, length=len(tensors["input_ids"]))
            for tensors, index in zip(texts, indices, strict=True)
        ]

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest example; shapes (B, S)."""
        return self.pad([example.inputs for example in examples])


TASKS.register("text-classification")(TextClassification)
