"""Sequence-to-sequence language modelling: a target text is foretold from an input text and its own beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import TASKS, Example, TaskError, longest_input
from evaluators.tasks.language_model import LanguageModelScore

if TYPE_CHECKING:
    import torch


class Seq2SeqLm(LanguageModelScore):
    """A text in, another text out; the label column holds the target text."""

    auto_model = "AutoModelForSeq2SeqLM"
    auto_processor = "AutoTokenizer"
    dynamic_axes: Mapping[str, Mapping[int, str]] = {
        "input_ids": {0: "batch", 1: "sequence"},
        "attention_mask": {0: "batch", 1: "sequence"},
        "decoder_input_ids": {0: "batch", 1: "target_sequence"},
        "decoder_attention_mask": {0: "batch", 1: "target_sequence"},
    }
    labelled = True
    byte_level = False

    def cut(self, text: str, *, max_length: int) -> Sequence[str] | None:
        """None: input and target stand in columns."""
        return None

    def encode(self, inputs: Sequence[Any], labels: Sequence[Any], *, max_length: int) -> list[Example]:
        """Tokenize inputs and target texts, both cut at `max_length` tokens."""
        import torch

        longest = longest_input(self._config, max_length)
        start = self._config.decoder_start_token_id
        if start is None:
            raise TaskError(
                "a sequence-to-sequence model starts its target with a token of its own; its configuration has no "
                "decoder_start_token_id; set it there"
            )
        examples = []
        for row, (source, target) in enumerate(zip(inputs, labels, strict=True)):
            source_ids = self.token_ids(self.check_text(source, row=row, column="inputs"))[:longest]
            target_ids = self.token_ids(self.check_text(target, row=row, column="labels"))[:longest]
            tensors = {
                "input_ids": torch.tensor(source_ids, dtype=torch.long),
                "attention_mask": torch.ones(len(source_ids), dtype=torch.long),
                "decoder_input_ids": torch.tensor([start, *target_ids[:-1]], dtype=torch.long),
                "decoder_attention_mask": torch.ones(len(target_ids), dtype=torch.long),
            }
            examples.append(
                Example(inputs=tensors, label=torch.tensor(target_ids, dtype=torch.long), length=len(source_ids))
            )
        return examples

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest input and the longest target; shapes (B, S)."""
        return self.collate_inputs(examples)

    def random_inputs(self, batch: int, sequence_length: int, *, seed: int) -> dict[str, torch.Tensor]:
        """Random tokens, inputs and targets of one length, all of them attended to; shapes (B, S)."""
        return self.random_tokens(self.dynamic_axes, (batch, sequence_length), seed=seed)


TASKS.register("seq2seq-lm")(Seq2SeqLm)
