"""Quality of a model on a split, batch by batch as the target will run it.

Kernels with dynamic activations take one scale for a whole call, so scores depend on which examples share a call.
Examples are therefore grouped into calls of the target's batch size, and several calls of one shape are stacked for
speed; whoever computes is told where one call ends.

The split is computed in nested segments (see `evaluators.rungs`), each grouped by itself. A score on a rung takes the
first of them, and going on from there gives the same bits as scoring all at once.

An example has one target (a class) or several (the tokens of a text). Scores and divergence are means over an
example's targets. Logits of a large vocabulary are too many to keep: targets are scored stack by stack, and logits are
kept only for as many examples as fit, from which divergence is measured.

Shape letters: B batch, S sequence, C classes, N examples, T targets, M targets whose logits are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from evaluators.calls import STACKED_TOKENS
from evaluators.calls import StackedCalls as StackedCalls
from evaluators.calls import stack_calls as stack_calls
from evaluators.divergence import kl_by_target
from evaluators.divergence import kl_divergence as kl_divergence
from evaluators.rungs import rung_of, rung_order, rung_sizes, segments
from evaluators.scores import Quality
from evaluators.tasks import Example, Task
from evaluators.tasks.base import IGNORED

if TYPE_CHECKING:
    import torch

Forward = Callable[[Mapping[str, "torch.Tensor"], int], "torch.Tensor"]
"""(inputs, examples in one call) -> logits of shape (B, C) or (B, S, C)."""
KEPT_BYTES = 2**28
"""Logits that are kept of one pass take at most so much memory."""
_STACKED_TOKENS_BY_DIFFICULTY = 1024
"""Smaller stacks cost some speed, and let a pass that begins with the difficult ones end sooner."""
_CHUNK_ELEMENTS = 2**25
"""Logits that are scored at once: copies of them are made on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What one pass over a split, or over a rung of it, gave.

    Attributes:
        per_example_N: Metric of each example, float32: in the split's order, on a rung in the order of `rung_order`.
        logits_MC: Logits by target, in the split's order: of all examples that were computed, or of a fixed sample
            where a vocabulary is too large to keep all.
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
        difficulty: Of each example (see `difficulty_of`), for passes that begin with the difficult ones; it decides
            what is computed together and when, and no score depends on it. None for none.
    """

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        *,
        batch: int,
        kept_bytes: int = KEPT_BYTES,
        difficulty: Sequence[float] | None = None,
    ) -> None:
        self.task = task
        self.examples = len(examples)
        self.difficulty = difficulty
        tokens = STACKED_TOKENS if difficulty is None else _STACKED_TOKENS_BY_DIFFICULTY
        self._stacks = [
            _Stack(segment, call, task.targets([examples[row] for row in call.rows]))
            for segment, rows in enumerate(segments(len(examples)))
            for call in stack_calls(
                task, examples, batch=batch, rows=rows, difficulty=difficulty, stacked_tokens=tokens
            )
        ]
        self._kept_bytes = kept_bytes
        self._dense: Outputs | None = None

    @property
    def calls(self) -> Sequence[StackedCalls]:
        """The split as it is computed, one segment after the other."""
        return [stack.call for stack in self._stacks]

    @property
    def rungs(self) -> int:
        """Rungs of the split; the last is the whole of it."""
        return len(rung_sizes(self.examples))

    def start(self, forward: Forward) -> Pass:
        """Begin a pass over the split, which the caller drives."""
        return Pass(self, self._stacks, forward)

    def run(self, forward: Forward, rung: int | None = None) -> Outputs:
        """Run a model over the split, or over one of its rungs, and score it stack by stack.

        Args:
            forward: The model.
            rung: From 0, the fewest examples; None, and any number beyond the last, mean the whole split.
        """
        one_pass = self.start(forward)
        last = self.rungs - 1 if rung is None else min(rung, self.rungs - 1)
        one_pass.reach(last)
        return one_pass.outputs(last)

    def set_dense(self, dense: Outputs) -> None:
        """Keep the dense model's outputs on the whole split, from which divergence is measured."""
        self._dense = dense

    @property
    def dense_metric(self) -> float:
        """Metric of the dense model."""
        assert self._dense is not None
        return self.score(self._dense).value

    def evaluate(self, forward: Forward, rung: int | None = None) -> Quality:
        """Score a model on the split or on one of its rungs."""
        return self.score(self.run(forward, rung))

    def score(self, outputs: Outputs) -> Quality:
        """Sum up what a pass gave on the whole split or on a rung."""
        scored = len(outputs.per_example_N)
        return Quality(
            metric=self.task.metric,
            value=float(outputs.per_example_N.double().mean()),
            per_example=tuple(outputs.per_example_N.tolist()),
            kl_to_dense=self._divergence(outputs.logits_MC, scored),
            seconds=outputs.seconds,
            rung=rung_of(scored, self.examples),
            share=scored / self.examples,
        )

    def difficulty_of(self, dense: Outputs) -> list[float]:
        """Return the dense model's loss on each example, in nats a target: where it nearly errs, compressed models do.

        Args:
            dense: Its outputs on the whole split. An example whose logits were not kept counts as easy.
        """
        import torch
        from torch.nn import functional

        target_N: list[torch.Tensor] = [torch.empty(0)] * self.examples
        for stack in self._stacks:
            for row, target in zip(stack.call.rows, stack.targets.view(len(stack.targets), -1), strict=True):
                target_N[row] = target[target != IGNORED]
        row_M = self._kept_row_of_target(dense.logits_MC.shape[-1])
        wanted_M = torch.cat([target_N[row] for row in torch.unique(row_M)])
        loss_M = functional.cross_entropy(dense.logits_MC.double().cpu(), wanted_M, reduction="none")
        loss_N = torch.zeros(self.examples, dtype=torch.float64).index_add_(0, row_M, loss_M)
        found: list[float] = (loss_N / torch.bincount(row_M, minlength=self.examples).clamp(min=1)).tolist()
        return found

    def divergence_by_example(self, one_pass: Pass) -> torch.Tensor:
        """Divergence from the dense model on each example, in nats; NaN where it was not computed or not kept.

        Returns:
            float64 of shape (N,); 0 everywhere where the dense model's outputs are not known.
        """
        import torch

        if self._dense is None:
            return torch.zeros(self.examples, dtype=torch.float64)
        row_M, logits_MC = one_pass.logits_by_row()
        reference_row_M = self._kept_row_of_target(logits_MC.shape[-1])
        is_done_M = one_pass.is_done_N[reference_row_M]
        reference_MC = self._dense.logits_MC[is_done_M.to(self._dense.logits_MC.device)]
        kl_M = kl_by_target(reference_MC, logits_MC).cpu()
        sums_N = torch.zeros(self.examples, dtype=torch.float64).index_add_(0, row_M, kl_M)
        return sums_N / torch.bincount(row_M, minlength=self.examples)

    def kept_rows(self, classes: int) -> torch.Tensor:
        """Whether an example's logits are kept, by row: those of all, or of the first in rung order that fit.

        So every rung has examples with logits among its own.

        Args:
            classes: Logits of one target.
        """
        import torch

        counts_N = self._targets_by_row()
        limit = self._kept_bytes // (4 * classes)
        order_N = torch.tensor(rung_order(self.examples))
        if int(counts_N.sum()) <= limit:
            return torch.ones(self.examples, dtype=torch.bool)
        kept_N = torch.zeros(self.examples, dtype=torch.bool)
        kept_N[order_N[counts_N[order_N].cumsum(0) <= limit]] = True
        kept_N[order_N[0]] = True
        return kept_N

    def _targets_by_row(self) -> torch.Tensor:
        import torch

        counts_N = torch.empty(self.examples, dtype=torch.long)
        for stack in self._stacks:
            targets = stack.targets.view(len(stack.targets), -1)
            counts_N[torch.tensor(stack.call.rows)] = (targets != IGNORED).sum(1)
        return counts_N

    def _kept_row_of_target(self, classes: int) -> torch.Tensor:
        """The example to which each kept row of logits belongs, shape (M,)."""
        import torch

        kept_N = self.kept_rows(classes)
        return torch.arange(self.examples)[kept_N].repeat_interleave(self._targets_by_row()[kept_N])

    def _divergence(self, logits_MC: torch.Tensor, scored: int) -> float:
        """Divergence from the dense model on the examples that were scored, as far as their logits are kept."""
        if self._dense is None:
            return 0.0
        reference_MC = self._dense.logits_MC
        if scored < self.examples:
            is_taken_N = _first_in_rung_order(self.examples, scored)
            row_M = self._kept_row_of_target(reference_MC.shape[-1])
            reference_MC = reference_MC[is_taken_N[row_M].to(reference_MC.device)]
        return kl_divergence(reference_MC, logits_MC)


@dataclass(frozen=True, slots=True)
class _Stack:
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

    def __init__(self, evaluator: QualityEvaluator, stacks: Sequence[_Stack], forward: Forward) -> None:
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
            logits_MC = logits_MC[_first_in_rung_order(examples, size)[row_M].to(logits_MC.device)]
        return Outputs(
            per_example_N=self._per_example_N[
                list(range(examples) if size == examples else rung_order(examples)[:size])
            ],
            logits_MC=logits_MC,
            seconds=self._seconds,
        )

    def _compute(self, stacks: Sequence[_Stack]) -> None:
        import torch

        started = time.monotonic()
        for stack in stacks:
            logits = self._forward(stack.call.inputs, stack.call.examples_per_call)
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
            self._per_example_N[row_B] = _mean_by_place(torch.cat(scores_T), torch.cat(place_T), len(row_B))
            self._is_done_N[row_B] = True
        self._left = [stack for stack in self._left if all(stack is not done for done in stacks)]
        self._seconds += time.monotonic() - started


def _first_in_rung_order(examples: int, count: int) -> torch.Tensor:
    """Which examples are the first so many in rung order, as booleans of shape (N,)."""
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


def _mean_by_place(scores_T: torch.Tensor, place_T: torch.Tensor, places: int) -> torch.Tensor:
    import torch

    sums = torch.zeros(places, dtype=torch.float64).index_add_(0, place_T, scores_T.double())
    return (sums / torch.bincount(place_T, minlength=places)).float()
