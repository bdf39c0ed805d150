"""Quality of a model on a split, batch by batch as the target will run it.

Kernels with dynamic activations take one scale for a whole call, so scores depend on which examples share a call.
Examples are therefore grouped into calls of the target's batch size, and several calls of one shape are stacked for
speed; whoever computes is told where one call ends.

The split is computed in nested segments (see `evaluators.rungs`), each grouped by itself. A score on a rung takes the
first of them, and going on from there gives the same bits as scoring all at once.

An example has one target (a class) or several (the tokens of a text). Scores and divergence are means over an
example's targets. Logits of a large vocabulary are too many to keep: targets are scored stack by stack, and logits are
kept only for as many examples as fit, from which divergence is measured.

Quality is the task's metric, or the fidelity to the dense model's outputs. A pass gives the former; the latter needs
the logits of every example. A metric that is no mean over examples (a rank correlation) is made of a pass's scores when
they are summed up.

Shape letters: B batch, S sequence, C classes, N examples, T targets, M targets whose logits are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evaluators.calls import STACKED_TOKENS
from evaluators.calls import StackedCalls as StackedCalls
from evaluators.calls import stack_calls as stack_calls
from evaluators.divergence import kl_divergence as kl_divergence
from evaluators.divergence import mean_by_row
from evaluators.passes import Forward as Forward
from evaluators.passes import Outputs as Outputs
from evaluators.passes import Pass as Pass
from evaluators.passes import Stack, first_in_rung_order
from evaluators.rungs import rung_of, rung_order, rung_sizes, segments
from evaluators.scores import Quality, QualityMeasure
from evaluators.tasks import Example, Task
from evaluators.tasks.base import IGNORED, comparison_of, score_together

if TYPE_CHECKING:
    import torch

KEPT_BYTES = 2**28
"""Logits that are kept of one pass take at most so much memory."""
_STACKED_TOKENS_BY_DIFFICULTY = 1024
"""Smaller stacks cost some speed, and let a pass that begins with the difficult ones end sooner."""


class FidelityError(ValueError):
    """The outputs are too many to be compared on every example."""


class QualityEvaluator:
    """Scores models on one split.

    Args:
        task: Scores outputs.
        examples: The split.
        batch: Examples in one call on the target.
        measure: What quality is; fidelity needs `set_dense` before anything is scored.
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
        measure: QualityMeasure = QualityMeasure.METRIC,
        kept_bytes: int = KEPT_BYTES,
        difficulty: Sequence[float] | None = None,
    ) -> None:
        self.task = task
        self.measure = measure
        self.examples = len(examples)
        self._labels = [example.label for example in examples]
        self._comparison = comparison_of(task)
        self.difficulty = difficulty
        tokens = STACKED_TOKENS if difficulty is None else _STACKED_TOKENS_BY_DIFFICULTY
        self._stacks = [
            Stack(segment, call, task.targets([examples[row] for row in call.rows]))
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
        """Keep the dense model's outputs on the whole split, from which divergence and fidelity are measured."""
        self._dense = dense

    @property
    def dense_metric(self) -> float:
        """The task's metric of the dense model."""
        assert self._dense is not None
        return self.score(self._dense, QualityMeasure.METRIC).value

    @property
    def constant_fidelity(self) -> float:
        """Fidelity of the best answer that does not look at the example; every target counts alike."""
        assert self._dense is not None
        return self._comparison.constant_agreement(self._dense.logits_MC)

    def evaluate(self, forward: Forward, rung: int | None = None) -> Quality:
        """Score a model on the split or on one of its rungs."""
        return self.score(self.run(forward, rung))

    def score(self, outputs: Outputs, measure: QualityMeasure | None = None) -> Quality:
        """Sum up what a pass gave on the whole split or on a rung.

        Args:
            outputs: What it gave.
            measure: What is wanted of it; None for quality as the evaluator means it.
        """
        measure = measure or self.measure
        scored = len(outputs.per_example_N)
        order = list(range(scored) if scored == self.examples else rung_order(self.examples)[:scored])
        if measure is QualityMeasure.FIDELITY:
            is_taken_N = first_in_rung_order(self.examples, scored)
            per_example_N = self._compare(self._comparison.agreement, outputs.logits_MC, is_taken_N)[order]
        else:
            per_example_N = self._metric_of(outputs.per_example_N, order)
        return Quality(
            metric=measure.name_with(self.task.metric),
            value=float(per_example_N.double().mean()),
            per_example=tuple(per_example_N.tolist()),
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
        return self._compare(self._comparison.divergence, one_pass.logits_by_row()[1], one_pass.is_done_N)

    def quality_by_example(self, one_pass: Pass) -> torch.Tensor:
        """Quality of each example in the split's order, shape (N,); NaN where it was not computed."""
        import torch

        if self.measure is QualityMeasure.FIDELITY:
            return self._compare(self._comparison.agreement, one_pass.logits_by_row()[1], one_pass.is_done_N)
        rows = one_pass.is_done_N.nonzero().flatten()
        found_N = torch.full((self.examples,), float("nan"), dtype=torch.float64)
        found_N[rows] = self._metric_of(one_pass.per_example_N[rows], rows.tolist()).double()
        return found_N

    def _metric_of(self, scores_K: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The task's metric of some examples by their scores; both in the order of the rows."""
        return score_together(self.task, scores_K, [self._labels[row] for row in rows])

    def _compare(
        self,
        by_target: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        logits_MC: torch.Tensor,
        is_done_N: torch.Tensor,
    ) -> torch.Tensor:
        """Compare outputs with the dense model's; NaN where an example was not computed or its logits not kept.

        Args:
            by_target: (dense logits, logits), both of shape (M, C) -> shape (M,).
            logits_MC: Logits of the examples that were computed, in the split's order.
            is_done_N: Which these are.

        Returns:
            Means over an example's targets, float64 of shape (N,).
        """
        assert self._dense is not None
        row_M = self._kept_row_of_target(logits_MC.shape[-1])
        is_done_M = is_done_N[row_M]
        reference_MC = self._dense.logits_MC[is_done_M.to(self._dense.logits_MC.device)]
        return mean_by_row(by_target(reference_MC, logits_MC).cpu(), row_M[is_done_M], self.examples)

    def kept_rows(self, classes: int) -> torch.Tensor:
        """Whether an example's logits are kept, by row: those of all, or of the first in rung order that fit.

        So every rung has examples with logits among its own.

        Args:
            classes: Logits of one target.

        Raises:
            FidelityError: Quality is fidelity, and not all fit.
        """
        import torch

        counts_N = self._targets_by_row()
        limit = self._kept_bytes // (4 * classes)
        order_N = torch.tensor(rung_order(self.examples))
        if int(counts_N.sum()) <= limit:
            return torch.ones(self.examples, dtype=torch.bool)
        if self.measure is QualityMeasure.FIDELITY:
            raise FidelityError(
                f"fidelity compares all outputs with the dense model's, so they must fit into "
                f"{self._kept_bytes / 1e6:,.0f} MB: {limit:,} targets of {classes:,} classes; got "
                f"{int(counts_N.sum()):,} in a split; set quality: metric (bits per token tell small losses as well), "
                "or take fewer or shorter examples"
            )
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
            is_taken_N = first_in_rung_order(self.examples, scored)
            row_M = self._kept_row_of_target(reference_MC.shape[-1])
            reference_MC = reference_MC[is_taken_N[row_M].to(reference_MC.device)]
        return float(self._comparison.divergence(reference_MC, logits_MC).mean())
