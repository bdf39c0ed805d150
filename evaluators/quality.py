"""Quality of a model on a split, batch by batch as the target will run it.

Kernels with dynamic activations take one scale for a whole call, so scores depend on which examples share a call.
Examples are therefore grouped into calls of the target's batch size, and several calls of one shape are stacked for
speed; whoever computes is told where one call ends. Shape letters: B batch, C classes, N examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.scores import Quality
from evaluators.tasks import Example, Task

if TYPE_CHECKING:
    import torch

Forward = Callable[[Mapping[str, "torch.Tensor"], int], "torch.Tensor"]
"""(inputs, examples in one call) -> logits of shape (B, C)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedCalls:
    """Several calls of one shape.

    Attributes:
        inputs: Model inputs; the batch axis holds the calls one after the other.
        examples_per_call: Examples of one call; divides the batch axis.
        rows: Positions of the examples in the split.
    """

    inputs: Mapping[str, torch.Tensor]
    examples_per_call: int
    rows: tuple[int, ...]


def stack_calls(
    task: Task, examples: Sequence[Example], *, batch: int, stacked_tokens: int = 2048
) -> list[StackedCalls]:
    """Group examples into calls of the target's batch size and stack calls of equal shape.

    Args:
        task: Collates examples.
        examples: The split, in its order.
        batch: Examples in one call. What is left over at the end makes a smaller call.
        stacked_tokens: About how many tokens (images count their own) are computed at once.
    """
    order = sorted(range(len(examples)), key=lambda row: examples[row].length)
    calls = [order[start : start + batch] for start in range(0, len(order), batch)]
    stacks: dict[tuple[int, int], list[list[int]]] = {}
    for call in calls:
        stacks.setdefault((max(examples[row].length for row in call), len(call)), []).append(call)
    found = []
    for (length, size), members in stacks.items():
        tokens_per_call = size * (length if length > 1 else 32)
        at_once = max(1, stacked_tokens // tokens_per_call)
        for start in range(0, len(members), at_once):
            rows = tuple(row for call in members[start : start + at_once] for row in call)
            inputs = task.collate([examples[row] for row in rows])
            found.append(StackedCalls(inputs=inputs, examples_per_call=size, rows=rows))
    return found


class QualityEvaluator:
    """Scores models on one split.

    Args:
        task: Scores outputs.
        examples: The split.
        batch: Examples in one call on the target.
    """

    def __init__(self, task: Task, examples: Sequence[Example], *, batch: int) -> None:
        import torch

        self._task = task
        self._calls = stack_calls(task, examples, batch=batch)
        self._labels_N = torch.tensor([example.label for example in examples])
        self._dense_NC: torch.Tensor | None = None

    @property
    def calls(self) -> Sequence[StackedCalls]:
        """The split as it is computed."""
        return self._calls

    def logits(self, forward: Forward) -> torch.Tensor:
        """Run a model over the split; logits of shape (N, C) in the split's order."""
        import torch

        parts = [forward(call.inputs, call.examples_per_call) for call in self._calls]
        rows = torch.tensor([row for call in self._calls for row in call.rows])
        stacked = torch.cat(parts)
        logits_NC = torch.empty_like(stacked)
        logits_NC[rows] = stacked
        return logits_NC

    def set_dense(self, dense_NC: torch.Tensor) -> None:
        """Keep the dense model's logits, from which divergence is measured."""
        self._dense_NC = dense_NC

    @property
    def dense_metric(self) -> float:
        """Metric of the dense model."""
        assert self._dense_NC is not None
        return self.score(self._dense_NC).value

    def evaluate(self, forward: Forward) -> Quality:
        """Score a model."""
        started = time.monotonic()
        return self.score(self.logits(forward), seconds=lambda: time.monotonic() - started)

    def score(self, logits_NC: torch.Tensor, *, seconds: Callable[[], float] = lambda: 0.0) -> Quality:
        """Score logits of shape (N, C) in the split's order."""
        per_example_N = self._task.score(logits_NC, self._labels_N)
        divergence = kl_divergence(self._dense_NC, logits_NC) if self._dense_NC is not None else 0.0
        return Quality(
            metric=self._task.metric,
            value=float(per_example_N.double().mean()),
            per_example=tuple(per_example_N.tolist()),
            kl_to_dense=divergence,
            seconds=seconds(),
        )


def kl_divergence(reference_NC: torch.Tensor, logits_NC: torch.Tensor) -> float:
    """Mean divergence KL(reference || model) of two sets of logits of shape (N, C), in nats."""
    from torch.nn import functional

    return float(
        functional.kl_div(
            functional.log_softmax(logits_NC.double(), -1),
            functional.log_softmax(reference_NC.double(), -1),
            reduction="batchmean",
            log_target=True,
        )
    )
