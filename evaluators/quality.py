"""Quality of a model on a split, batch by batch as the target will run it.

Kernels with dynamic activations take one scale for a whole call, so scores depend on which examples share a call.
Examples are therefore grouped into calls of the target's batch size, and several calls of one shape are stacked for
speed; whoever computes is told where one call ends.

An example has one target (a class) or several (the tokens of a text). Scores and divergence are means over an
example's targets. Logits of a large vocabulary are too many to keep: targets are scored stack by stack, and logits are
kept only for as many examples as fit, from which divergence is measured.

Shape letters: B batch, S sequence, C classes, N examples, T targets, M targets whose logits are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.scores import Quality
from evaluators.tasks import Example, Task
from evaluators.tasks.base import IGNORED

if TYPE_CHECKING:
    import torch

Forward = Callable[[Mapping[str, "torch.Tensor"], int], "torch.Tensor"]
"""(inputs, examples in one call) -> logits of shape (B, C) or (B, S, C)."""
KEPT_BYTES = 2**28
"""Logits that are kept of one pass take at most so much memory."""
_CHUNK_ELEMENTS = 2**25
"""Logits that are scored at once: copies of them are made on the way."""
_SAMPLE_SEED = 0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What one pass over a split gave.

    Attributes:
        per_example_N: Metric of each example in the split's order, float32.
        logits_MC: Logits by target, in the split's order: of all examples, or of a fixed sample where a vocabulary is
            too large to keep all.
        seconds: Wall time of the pass.
    """

    per_example_N: torch.Tensor
    logits_MC: torch.Tensor
    seconds: float


class QualityEvaluator:
    """Scores models on one split.

    Args:
        task: Scores outputs.
        examples: The split.
        batch: Examples in one call on the target.
        kept_bytes: Memory for the logits that are kept of a pass; at least one example's are.
    """

    def __init__(self, task: Task, examples: Sequence[Example], *, batch: int, kept_bytes: int = KEPT_BYTES) -> None:
        self._task = task
        self._calls = stack_calls(task, examples, batch=batch)
        self._targets = [task.targets([examples[row] for row in call.rows]) for call in self._calls]
        self._examples = len(examples)
        self._kept_bytes = kept_bytes
        self._dense: Outputs | None = None

    @property
    def calls(self) -> Sequence[StackedCalls]:
        """The split as it is computed."""
        return self._calls

    def run(self, forward: Forward) -> Outputs:
        """Run a model over the split and score it, stack by stack."""
        import torch

        started = time.monotonic()
        per_example_N = torch.empty(self._examples)
        kept_N: torch.Tensor | None = None
        parts: list[torch.Tensor] = []
        rows: list[torch.Tensor] = []
        for call, targets in zip(self._calls, self._targets, strict=True):
            logits = forward(call.inputs, call.examples_per_call)
            kept_N = self._kept(logits.shape[-1]) if kept_N is None else kept_N
            row_B = torch.tensor(call.rows)
            scores_T, place_T = [], []
            for place, target, chunk_TC in _by_target(logits, targets):
                scores_T.append(self._task.score(chunk_TC, target).cpu())
                place_T.append(place)
                is_kept_T = kept_N[row_B[place]]
                parts.append(chunk_TC[is_kept_T.to(chunk_TC.device)])
                rows.append(row_B[place][is_kept_T])
            per_example_N[row_B] = _mean_by_place(torch.cat(scores_T), torch.cat(place_T), len(row_B))
        order_M = torch.cat(rows).argsort(stable=True)
        return Outputs(
            per_example_N=per_example_N,
            logits_MC=torch.cat(parts)[order_M],
            seconds=time.monotonic() - started,
        )

    def set_dense(self, dense: Outputs) -> None:
        """Keep the dense model's outputs, from which divergence is measured."""
        self._dense = dense

    @property
    def dense_metric(self) -> float:
        """Metric of the dense model."""
        assert self._dense is not None
        return self.score(self._dense).value

    def evaluate(self, forward: Forward) -> Quality:
        """Score a model."""
        return self.score(self.run(forward))

    def score(self, outputs: Outputs) -> Quality:
        """Sum up what a pass gave."""
        dense = self._dense
        return Quality(
            metric=self._task.metric,
            value=float(outputs.per_example_N.double().mean()),
            per_example=tuple(outputs.per_example_N.tolist()),
            kl_to_dense=0.0 if dense is None else kl_divergence(dense.logits_MC, outputs.logits_MC),
            seconds=outputs.seconds,
        )

    def _kept(self, classes: int) -> torch.Tensor:
        """Whether an example's logits are kept, by row: those of all, or of as many drawn ones as fit."""
        import torch

        counts_N = torch.empty(self._examples, dtype=torch.long)
        for call, targets in zip(self._calls, self._targets, strict=True):
            counts_N[torch.tensor(call.rows)] = (targets.view(len(targets), -1) != IGNORED).sum(1)
        limit = self._kept_bytes // (4 * classes)
        drawn_N = torch.randperm(self._examples, generator=torch.Generator().manual_seed(_SAMPLE_SEED))
        if int(counts_N.sum()) <= limit:
            return torch.ones(self._examples, dtype=torch.bool)
        kept_N = torch.zeros(self._examples, dtype=torch.bool)
        kept_N[drawn_N[counts_N[drawn_N].cumsum(0) <= limit]] = True
        kept_N[drawn_N[0]] = True
        return kept_N


def _by_target(
    logits: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield (place in the batch, target, logits) of targets that count, some at a time; shapes (T,), (T,), (T, C)."""
    wanted = (targets != IGNORED).nonzero()
    at_once = max(1, _CHUNK_ELEMENTS // logits.shape[-1])
    for start in range(0, len(wanted), at_once):
        axes = wanted[start : start + at_once].unbind(1)
        yield axes[0], targets[axes].to(logits.device), logits[tuple(axis.to(logits.device) for axis in axes)]


def _mean_by_place(scores_T: torch.Tensor, place_T: torch.Tensor, places: int) -> torch.Tensor:
    import torch

    sums = torch.zeros(places, dtype=torch.float64).index_add_(0, place_T, scores_T.double())
    return (sums / torch.bincount(place_T, minlength=places)).float()


def kl_divergence(reference_MC: torch.Tensor, logits_MC: torch.Tensor) -> float:
    """Mean divergence KL(reference || model) of two sets of logits of shape (M, C), in nats."""
    from torch.nn import functional

    rows, total = max(1, _CHUNK_ELEMENTS // logits_MC.shape[-1]), 0.0
    for start in range(0, len(logits_MC), rows):
        part = slice(start, start + rows)
        total += float(
            functional.kl_div(
                functional.log_softmax(logits_MC[part].double(), -1),
                functional.log_softmax(reference_MC[part].double(), -1),
                reduction="sum",
                log_target=True,
            )
        )
    return total / len(logits_MC)
