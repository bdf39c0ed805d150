"""Tokenized texts as model inputs, for tasks of encoders. Shape letters: B batch, S sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import TaskError

if TYPE_CHECKING:
    import torch

_PADDED_WITH_ZERO = ("attention_mask", "token_type_ids")


class TextInputs:
    """Texts to tokens, tokens to batches."""

    auto_processor = "AutoTokenizer"
    dynamic_axes: Mapping[str, Mapping[int, str]] = {
        name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask", "token_type_ids")
    }

    def __init__(self, processor: Any, config: Any) -> None:
        self._tokenizer, self._config = processor, config
        self._pad_id = int(getattr(config, "pad_token_id", 0) or 0)

    def tokenize(self, texts: Sequence[Any], *, longest: int, texts_per_row: int = 1) -> list[dict[str, torch.Tensor]]:
        """Tokens of each text by input name, cut at `longest`; shapes (S,).

        Raises:
            TaskError: One is no text, or is empty; the message gives the row, of which each holds `texts_per_row`.
        """
        import torch

        for number, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise TaskError(f"inputs are texts that are not empty; got {text!r} in row {number // texts_per_row}")
        encoded = self._tokenizer(list(texts), truncation=True, max_length=longest)
        names = [name for name in encoded if name in self.dynamic_axes]
        return [
            {name: torch.tensor(encoded[name][row], dtype=torch.long) for name in names} for row in range(len(texts))
        ]

    def pad(self, rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Stack tokens, padded on the right to the longest; shapes (B, S)."""
        from torch.nn.utils.rnn import pad_sequence

        return {
            name: pad_sequence(
                [row[name] for row in rows],
                batch_first=True,
                padding_value=0 if name in _PADDED_WITH_ZERO else self._pad_id,
            )
            for name in rows[0]
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
