"""A model with an early exit, in torch: how it answers, and the form of it that is traced for export.

Shape letters: B batch, S sequence, H hidden width, C classes, N examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evaluators.calls import stack_calls
from evaluators.quality import Forward
from evaluators.tasks import Example, Task
from workers.export.early_exit.head import ExitHead, entropy, pool
from workers.export.early_exit.record import ExitForecast
from workers.trial import run_model

_MASK = "attention_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit:
    """Where examples leave a model, and by what.

    Attributes:
        head: Classifies the hidden states after the block.
        forecast: Block, threshold, and what the search split says of them.
    """

    head: ExitHead
    forecast: ExitForecast

    def leaves(self, exit_BC: Tensor) -> Tensor:
        """Whether each example leaves, by the head's logits; booleans of shape (B,)."""
        return entropy(exit_BC) <= self.forecast.threshold_nats


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStates:
    """What a model's blocks return for each example of a split.

    Attributes:
        pooled: Mean hidden state of each example by block, shape (N, H); see `head.pool`.
        whole_NC: Logits of the whole model.
    """

    pooled: Mapping[str, Tensor]
    whole_NC: Tensor


@contextmanager
def watched_blocks(model: nn.Module, blocks: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Fill a mapping with what blocks return, by name, whenever the model runs."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def read_blocks(model: nn.Module, task: Task, examples: Sequence[Example], blocks: Sequence[str]) -> BlockStates:
    """Run a model over examples, each in a call of its own, and keep what its blocks return.

    Args:
        model: An assembled model.
        task: Collates examples.
        examples: The split.
        blocks: Modules that return hidden states of shape (B, S, H), alone or first in a tuple.
    """
    calls = stack_calls(task, examples, batch=1)
    rows: list[int] = []
    logits: list[Tensor] = []
    pooled: dict[str, list[Tensor]] = {name: [] for name in blocks}
    with watched_blocks(model, blocks) as hidden:
        for call in calls:
            logits.append(run_model(model, call.inputs, call.examples_per_call))
            rows.extend(call.rows)
            for name in blocks:
                pooled[name].append(pool(hidden[name], call.inputs.get(_MASK)))
    order = torch.tensor(rows).argsort()
    return BlockStates(
        pooled={name: torch.cat(parts)[order] for name, parts in pooled.items()}, whole_NC=torch.cat(logits)[order]
    )


def exiting_forward(model: nn.Module, early_exit: EarlyExit) -> Forward:
    """Run a model as an evaluator asks for it, each example by itself: what leaves has the exit's logits."""

    def forward(inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
        block = early_exit.forecast.block
        with watched_blocks(model, (block,)) as hidden:
            whole_BC = run_model(model, inputs, examples_per_call)
        with torch.inference_mode():
            exit_BC = early_exit.head(hidden[block], inputs.get(_MASK))
            return torch.where(early_exit.leaves(exit_BC)[:, None], exit_BC, whole_BC)

    return forward


class ExitingModel(nn.Module):
    """A model that returns all that a graph with an early exit is cut from.

    Args:
        model: The assembled model.
        names: Its inputs, in the order in which they are given.
        early_exit: The exit.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], early_exit: EarlyExit) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.head = early_exit.head
        self._block, self._threshold_nats = early_exit.forecast.block, early_exit.forecast.threshold_nats

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the whole model's logits, the exit's, both of shape (B, C), and whether the call may leave.

        A call leaves when all of its examples are sure.
        """
        named = dict(zip(self.names, inputs, strict=True))
        with watched_blocks(self.model, (self._block,)) as hidden:
            whole_BC: Tensor = self.model(**named).logits
        exit_BC: Tensor = self.head(hidden[self._block], named.get(_MASK))
        return whole_BC, exit_BC, entropy(exit_BC).max() <= self._threshold_nats
