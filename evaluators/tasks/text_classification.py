"""Text classification. Shape letters: B batch, S sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import TASKS, Example, TaskError, class_index, longest_input
from evaluators.tasks.classification import ClassificationScore

if TYPE_CHECKING:
    import torch

_PADDED_WITH_ZERO = ("attention_mask", "token_type_ids")


class TextClassification(ClassificationScore):
    """One text in, one class out."""

    auto_model = "AutoModelForSequenceClassification"
    auto_processor = "AutoTokenizer"
    dynamic_axes: Mapping[str, Mapping[int, str]] = {
        name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask", "token_type_ids")
    }

    def __init__(self, processor: Any, config: Any) -> None:
        self._tokenizer, self._config = processor, config
        self._pad_id = int(getattr(config, "pad_token_id", 0) or 0)

    def encode(self, inputs: Sequence[Any], labels: Sequence[Any], *, max_length: int) -> list[Example]:
        """Tokenize texts, cut at `max_length` tokens or at what the model takes, whichever is less."""
        import torch

        for row, text in enumerate(inputs):
            if not isinstance(text, str) or not text.strip():
                raise TaskError(f"inputs are texts that are not empty; got {text!r} in row {row}")
        longest = longest_input(self._config, max_length)
        encoded = self._tokenizer(list(inputs), truncation=True, max_length=longest)
        names = [name for name in encoded if name in self.dynamic_axes]
        examples = []
        for row, label in enumerate(labels):
            tensors = {name: torch.tensor(encoded[name][row], dtype=torch.long) for name in names}
            index = class_index(label, self._config, row=row)
            examples.append(Example(inputs=tensors, label=index, length=len(tensors["input_ids"])))
        return examples

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest example; shapes (B, S)."""
        from torch.nn.utils.rnn import pad_sequence

        return {
            name: pad_sequence(
                [example.inputs[name] for example in examples],
                batch_first=True,
                padding_value=0 if name in _PADDED_WITH_ZERO else self._pad_id,
            )
            for name in examples[0].inputs
        }

    def random_inputs(self, batch: int, sequence_length: int, *, seed: int) -> dict[str, torch.Tensor]:
        """Random tokens, all of them attended to; shapes (B, S)."""
        import torch

        shape = (batch, sequence_length)
        generator = torch.Generator().manual_seed(seed)
        values = {
            "input_ids": torch.randint(self._config.vocab_size, shape, generator=generator),
            "attention_mask": torch.ones(shape, dtype=torch.long),
            "token_type_ids": torch.zeros(shape, dtype=torch.long),
        }
        return {name: values[name] for name in self._tokenizer.model_input_names if name in values}


TASKS.register("text-classification")(TextClassification)
