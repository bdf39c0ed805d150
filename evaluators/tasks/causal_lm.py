"""Causal language modelling: every token of a text is foretold from those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import TASKS, Example, TaskError, longest_input
from evaluators.tasks.language_model import LanguageModelScore

if TYPE_CHECKING:
    import torch


class CausalLm(LanguageModelScore):
    """A text in, the next token out at each place.

    Rows are texts, or windows of a text file: `max_length` tokens, of which each foretells the next, so that the last
    one foretells the first of the next window. What is left over at the file's end is dropped.
    """

    auto_model = "AutoModelForCausalLM"
    auto_processor = "AutoTokenizer"
    dynamic_axes: Mapping[str, Mapping[int, str]] = {
        name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")
    }
    labelled = False
    byte_level = True

    def cut(self, text: str, *, max_length: int) -> Sequence[Sequence[int]] | None:
        """Windows of `max_length` + 1 tokens; the last of one is the first of the next, and a target only once."""
        size = longest_input(self._config, max_length)
        ids = self.token_ids(text, special=False)
        return [ids[start : start + size + 1] for start in range(0, len(ids) - size, size)]

    def encode(self, inputs: Sequence[Any], labels: Sequence[Any], *, max_length: int) -> list[Example]:
        """Read texts or windows, cut after `max_length` tokens and the one that the last of them foretells."""
        import torch

        longest = longest_input(self._config, max_length)
        examples = []
        for row, value in enumerate(inputs):
            window = isinstance(value, list | tuple) and all(type(token) is int for token in value)
            ids = list(value) if window else self.token_ids(self.check_text(value, row=row, column="inputs"))
            ids = ids[: longest + 1]
            if len(ids) < 2:
                raise TaskError(
                    f"a text has two tokens or more, so that one foretells the other; got {value!r} in row {row}; "
                    "leave it out"
                )
            tokens = torch.tensor(ids, dtype=torch.long)
            tensors = {"input_ids": tokens[:-1], "attention_mask": torch.ones(len(ids) - 1, dtype=torch.long)}
            examples.append(Example(inputs=tensors, label=tokens[1:], length=len(ids) - 1))
        return examples

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest example; shapes (B, S)."""
        return self.collate_inputs(examples)

    def random_inputs(self, batch: int, sequence_length: int, *, seed: int) -> dict[str, torch.Tensor]:
        """Random tokens, all of them attended to; shapes (B, S)."""
        return self.random_tokens(self.dynamic_axes, (batch, sequence_length), seed=seed)


TASKS.register("causal-lm")(CausalLm)
