"""Scoring and reading that language models share. Shape letters: B batch, S sequence, T targets, C vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import IGNORED, Example, TaskError

if TYPE_CHECKING:
    import torch

BYTES = 256
_MASK = "attention_mask"


class LanguageModelScore:
    """Bits that the model needs for a token of the text, negated so that larger is better.

    The mean cross-entropy in bits is the base-2 logarithm of the perplexity. It adds up: a constraint
    `max_quality_drop: 0.05` allows 0.05 more bits for each token, which is 3.5 % more perplexity, whatever the model.
    """

    right_or_wrong = False

    def __init__(self, processor: Any, config: Any) -> None:
        self._tokenizer, self._config = processor, config
        self.metric = "neg_bits_per_byte" if processor is None else "neg_bits_per_token"
        self._pad_id = int(getattr(config, "pad_token_id", 0) or 0)
        if processor is None and config.vocab_size < BYTES:
            raise TaskError(
                f"a model without a tokenizer reads bytes, for which it needs {BYTES} tokens; got "
                f"vocab_size={config.vocab_size}; put the tokenizer's files beside the weights"
            )

    def targets(self, examples: Sequence[Example]) -> torch.Tensor:
        """Target tokens, padded with `IGNORED`; shape (B, S)."""
        import torch

        return pad([torch.as_tensor(example.label) for example in examples], IGNORED)

    def score(self, logits_TC: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
        """log2 of the probability of each target."""
        from torch.nn import functional

        return -functional.cross_entropy(logits_TC.float(), targets_T, reduction="none") / math.log(2)

    def chance(self, labels: Sequence[Any]) -> float:
        """All tokens held equally likely."""
        return -math.log2(self._config.vocab_size)

    def token_ids(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text, with the special ones that the tokenizer adds, or its UTF-8 bytes."""
        if self._tokenizer is None:
            return list(text.encode())
        found: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return found

    def check_text(self, text: Any, *, row: int, column: str) -> str:
        """Refuse what is no text.

        Raises:
            TaskError: The message gives the row.
        """
        if not isinstance(text, str) or not text.strip():
            raise TaskError(f"{column} are texts that are not empty; got {text!r} in row {row}")
        return text

    def collate_inputs(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest example; shapes (B, S)."""
        return {
            name: pad([example.inputs[name] for example in examples], 0 if name.endswith(_MASK) else self._pad_id)
            for name in examples[0].inputs
        }

    def random_tokens(self, names: Mapping[str, Any], shape: tuple[int, int], *, seed: int) -> dict[str, torch.Tensor]:
        """Random tokens for each input, all of them attended to; shapes (B, S)."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.ones(shape, dtype=torch.long)
            if name.endswith(_MASK)
            else torch.randint(self._config.vocab_size, shape, generator=generator)
            for name in names
        }


def pad(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Stack rows of tokens, padded on the right."""
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(list(rows), batch_first=True, padding_value=value)
