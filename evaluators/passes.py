"""A model's way through a split: which part is computed when, and what it gave.

Shape letters: B batch, C classes, N examples, T targets, M targets whose logits are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from evaluators.calls import StackedCalls
from evaluators.divergence import mean_by_row
from evaluators.rungs import rung_order, rung_sizes
from evaluators.tasks.base import IGNORED

if TYPE_CHECKING:
    import torch

    from evaluators.quality import QualityEvaluator

Forward = Callable[[Mapping[str, "torch.Tensor"], int], "torch.Tensor"]
"""(inputs, examples in one call) -> logits of shape (B, C) or (B, S, C)."""
_CHUNK_ELEMENTS = 2**25
"""Logits that are scored at once: copies of them are made on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What one pass over a split, or over a rung of it, gave.

    Attributes:
        per_example_N: The task's metric of each example, float32: in the split's order, on a rung in the order of
            `rung_order`.
        logits_MC: Logits by target, in the split's order: of all examples that were computed, or of a fixed sample
            where a vocabulary is too large to keep all.
        seconds: Wall time of the pass.
    """

    per_example_N: torch.Tensor
    logits_MC: torch.Tensor
    seconds: float


@dataclass(frozen=True, slots=True)
class Stack:
    """What is computed at once, with the segment that it belongs to and what its outputs are compared with."""

    segment: int
    call: StackedCalls
    targets: torch.Tensor


class Pass:
    """One model's way through a split.

    The stacks are the same and give the same bits, in whatever order they are computed.

    Args:
        evaluator: The split.
        stacks: What is to be computed.
        forward: The model.
    """

    def __init__(self, evaluator: QualityEvaluator, stacks: Sequence[Stack], forward: Forward) -> None:
        import torch

        self._evaluator = evaluator
        self._forward = forward
        self._left = list(stacks)
        self._seconds = 0.0
        self._per_example_N = torch.full((evaluator.examples,), float("nan"))
        self._is_done_N = torch.zeros(evaluator.examples, dtype=torch.bool)
        self._kept_N: torch.Tensor | None = None
        self._parts: list[torch.Tensor] = []
        self._rows: list[torch.Tensor] = []

    @property
    def finished(self) -> bool:
        """Whether the whole split was computed."""
        return not self._left

    @property
    def per_example_N(self) -> torch.Tensor:
        """Metric of each example in the split's order; NaN where `is_done_N` is false."""
        return self._per_example_N

    @property
    def is_done_N(self) -> torch.Tensor:
        """Which examples were computed."""
        return self._is_done_N

    @property
    def seconds(self) -> float:
        """Wall time of the computation so far."""
        return self._seconds

    def reach(self, rung: int) -> None:
        """Compute what is missing of a rung, one segment after the other."""
        self._compute([stack for stack in self._left if stack.segment <= rung])

    def step(self) -> None:
        """Compute the most difficult stack that is left."""
        difficulty = self._evaluator.difficulty
        assert difficulty is not None
        self._compute([max(self._left, key=lambda stack: fmean(difficulty[row] for row in stack.call.rows))])

    def logits_by_row(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the example of each kept target so far, in the split's order, and its logits; shapes (M,), (M, C)."""
        import torch

        row_M = torch.cat(self._rows)
        order_M = row_M.argsort(stable=True)
        logits_MC = torch.cat(self._parts)
        return row_M[order_M], logits_MC[order_M.to(logits_MC.device)]

    def outputs(self, rung: int) -> Outputs:
        """Return what was computed of a rung, all of which must be done."""
        examples = self._evaluator.examples
        size = rung_sizes(examples)[rung]
        row_M, logits_MC = self.logits_by_row()
        if int(self._is_done_N.sum()) > size:
            logits_MC = logits_MC[first_in_rung_order(examples, size)[row_M].to(logits_MC.device)]
        return Outputs(
            per_example_N=self._per_example_N[
                list(range(examples) if size == examples else rung_order(examples)[:size])
            ],
            logits_MC=logits_MC,
            seconds=self._seconds,
        )

    def _compute(self, stacks: Sequence[Stack]) -> None:
        import torch

        started = time.monotonic()
        for stack in stacks:
            logits = by_example(self._forward(stack.call.inputs, stack.call.examples_per_call), len(stack.call.rows))
            if self._kept_N is None:
                self._kept_N = self._evaluator.kept_rows(logits.shape[-1])
            row_B = torch.tensor(stack.call.rows)
            scores_T, place_T = [], []
            for place, target, chunk_TC in _by_target(logits, stack.targets):
                scores_T.append(self._evaluator.task.score(chunk_TC, target).cpu())
                place_T.append(place)
                is_kept_T = self._kept_N[row_B[place]]
                self._parts.append(chunk_TC[is_kept_T.to(chunk_TC.device)])
                self._rows.append(row_B[place][is_kept_T])
            scores_B = mean_by_row(torch.cat(scores_T), torch.cat(place_T), len(row_B))
            self._per_example_N[row_B] = scores_B.float()
            self._is_done_N[row_B] = True
        self._left = [stack for stack in self._left if all(stack is not done for done in stacks)]
        self._seconds += time.monotonic() - started


def by_example(outputs: torch.Tensor, examples: int) -> torch.Tensor:
    """Put outputs of one example side by side, where an example is several inputs: (B * E, D) becomes (B, E * D)."""
    return outputs if len(outputs) == examples else outputs.reshape(examples, -1)


def first_in_rung_order(examples: int, count: int) -> torch.Tensor:
    """Return which examples are the first so many in rung order, as booleans of shape (N,)."""
    import torch

    found_N = torch.zeros(examples, dtype=torch.bool)
    found_N[list(rung_order(examples)[:count])] = True
    return found_N


def _by_target(
    logits: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield (place in the batch, target, logits) of targets that count, some at a time; shapes (T,), (T,), (T, C)."""
    wanted = (targets != IGNORED).nonzero()
    at_once = max(1, _CHUNK_ELEMENTS // logits.shape[-1])
    for start in range(0, len(wanted), at_once):
        axes = wanted[start : start + at_once].unbind(1)
        yield axes[0], targets[axes].to(logits.device), logits[tuple(axis.to(logits.device) for axis in axes)]
