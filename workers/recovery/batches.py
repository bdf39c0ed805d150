"""What a training looks at: batches of examples of like length, and what the dense model says of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.passes import by_example
from evaluators.tasks import Example, Task

_KEPT_BYTES = 2**28
"""Answers of the dense model are kept where all fit into this; else it runs in every step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples of one step.

    Attributes:
        rows: Their positions among the training examples.
        inputs: Model inputs.
        targets: What the outputs are compared with.
    """

    rows: tuple[int, ...]
    inputs: Mapping[str, Tensor]
    targets: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Batch(rows=self.rows, inputs=inputs, targets=self.targets.to(device))


class TrainingData:
    """Examples in an order that depends on seed and epoch alone.

    Args:
        task: Collates them.
        examples: The examples.
        batch: Examples in one step.
        seed: Seed of the order.
    """

    def __init__(self, task: Task, examples: Sequence[Example], *, batch: int, seed: int) -> None:
        self._task, self._examples, self._batch, self._seed = task, examples, batch, seed

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._examples)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._examples) // self._batch)

    def order(self, epoch: int) -> list[tuple[int, ...]]:
        """Rows of each batch of an epoch: of about one length, so that little is padding, and no two epochs alike."""
        generator = random.Random(f"{self._seed}/{epoch}")
        rows = sorted(range(len(self)), key=lambda row: self._examples[row].length + 2 * generator.random())
        batches = [tuple(rows[start : start + self._batch]) for start in range(0, len(rows), self._batch)]
        generator.shuffle(batches)
        return batches

    def batch(self, rows: tuple[int, ...]) -> Batch:
        """Collate some rows."""
        examples = [self._examples[row] for row in rows]
        return Batch(rows=rows, inputs=self._task.collate(examples), targets=self._task.targets(examples))

    def by_length(self) -> list[tuple[int, ...]]:
        """Rows in batches by length, the same in every epoch."""
        rows = sorted(range(len(self)), key=lambda row: self._examples[row].length)
        return [tuple(rows[start : start + self._batch]) for start in range(0, len(rows), self._batch)]


class Teacher:
    """The dense model, or its answers to all training examples where these are few numbers.

    Args:
        model: The dense model.
        data: The training examples.
        hidden: Whether hidden states are asked for.
        device: Where it runs.
    """

    def __init__(self, model: nn.Module, data: TrainingData, *, hidden: bool, device: torch.device) -> None:
        self._model, self._hidden = model.to(device).eval(), hidden
        self._known: dict[int, Tensor] | None = None if hidden else self._ask_all(data, device)

    @torch.no_grad()
    def answer(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits of a batch, of shape (B, C) or (B, S, C), and hidden states where they are asked for.

        Embeddings of a pair of texts stand in two rows, or beside each other where all answers are known.
        """
        if self._known is not None:
            known = torch.stack([self._known[row] for row in batch.rows])
            return known.to(batch.targets.device), ()
        outputs: Any = self._model(**batch.inputs, output_hidden_states=self._hidden)
        return outputs.logits, tuple(outputs.hidden_states) if self._hidden else ()

    @torch.no_grad()
    def _ask_all(self, data: TrainingData, device: torch.device) -> dict[int, Tensor] | None:
        """Answers by row, always computed in the same batches; None where there are many, or one for each token."""
        found: dict[int, Tensor] = {}
        for rows in data.by_length():
            logits_BC = by_example(self._model(**data.batch(rows).to(device).inputs).logits, len(rows))
            if logits_BC.ndim != 2 or logits_BC[0].nbytes * len(data) > _KEPT_BYTES:
                return None
            found |= dict(zip(rows, logits_BC.cpu(), strict=True))
        return found
