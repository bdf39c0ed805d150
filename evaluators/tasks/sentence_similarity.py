"""Sentence similarity: the cosine of two texts' embeddings. Shape letters: B batch, S sequence, T pairs, D features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluators.comparison import PAIRS_OF_EMBEDDINGS
from evaluators.rank_correlation import spearman_by_example
from evaluators.tasks.base import TASKS, Example, TaskError, longest_input
from evaluators.tasks.text_inputs import TextInputs

if TYPE_CHECKING:
    import torch

_PAIR = 2
_DECIMALS = 6
"""Of cosines that are ranked: pairs of equal texts, which have a cosine of 1 but for rounding, then have one rank."""


class SentenceSimilarity(TextInputs):
    """Pairs of texts with a score of how alike they are; the model embeds one text at a time.

    Both texts of a pair are rows of a batch, and both are padded to the longest text of their call. The metric is
    Spearman's rank correlation of cosines and scores. Fidelity is the mean cosine of embeddings with the dense model's,
    for which scores don't matter.
    """

    auto_model = "evaluators.tasks.sentence_encoder:AutoModelForSentenceEmbedding"
    metric = "spearman_cosine"
    right_or_wrong = False
    labelled = True
    byte_level = False
    pairs = True
    comparison = PAIRS_OF_EMBEDDINGS

    def cut(self, text: str, *, max_length: int) -> Sequence[str] | None:
        """None: pairs stand in columns."""
        return None

    def encode(self, inputs: Sequence[Any], labels: Sequence[Any], *, max_length: int) -> list[Example]:
        """Tokenize pairs of texts, each text cut at `max_length` tokens or at what the model takes."""
        for row, pair in enumerate(inputs):
            if not isinstance(pair, list | tuple) or len(pair) != _PAIR:
                raise TaskError(f"inputs are pairs of texts; got {pair!r} in row {row}; set data.columns.pair")
        longest = longest_input(self._config, max_length)
        texts = self.tokenize([text for pair in inputs for text in pair], longest=longest, texts_per_row=_PAIR)
        examples = []
        for row, label in enumerate(labels):
            score = _score_of(label, row=row)
            tensors = self.pad(texts[_PAIR * row : _PAIR * row + _PAIR])
            examples.append(Example(inputs=tensors, label=score, length=tensors["input_ids"].shape[1]))
        return examples

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Pad on the right to the longest text; shapes (2 * B, S), the texts of a pair one after the other."""
        return self.pad(
            [
                {name: tensor[place] for name, tensor in example.inputs.items()}
                for example in examples
                for place in range(_PAIR)
            ]
        )

    def targets(self, examples: Sequence[Example]) -> torch.Tensor:
        """A zero for each pair, shape (B,): scores are looked at when those of all pairs are known."""
        import torch

        return torch.zeros(len(examples), dtype=torch.long)

    def score(self, logits_TC: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
        """Cosine of the two embeddings of each pair, which stand side by side: C = 2 * D."""
        from torch.nn import functional

        first_TD, second_TD = logits_TC.float().chunk(_PAIR, dim=-1)
        return functional.cosine_similarity(first_TD, second_TD, dim=-1)

    def score_together(self, cosines_N: torch.Tensor, labels: Sequence[Any]) -> torch.Tensor:
        """What each pair has of Spearman's correlation of cosines with scores: its pseudo-value; shape (N,)."""
        import torch

        cosines_N = cosines_N.double().round(decimals=_DECIMALS)
        return spearman_by_example(cosines_N, torch.tensor(labels, dtype=torch.float64))

    def chance(self, labels: Sequence[Any]) -> float:
        """0: ranks that have nothing to do with the scores."""
        return 0.0


def _score_of(label: Any, *, row: int) -> float:
    """Read how alike two texts are said to be, on whatever scale.

    Raises:
        TaskError: It is no finite number.
    """
    try:
        score = float(label)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise TaskError(
            f"labels are numbers, larger where two texts are more alike; got {label!r} in row {row}; check "
            "data.columns.label"
        )
    return score


TASKS.register("sentence-similarity")(SentenceSimilarity)
