"""Examples grouped into calls as the target makes them, and calls stacked for speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from evaluators.tasks import Example, Task

if TYPE_CHECKING:
    import torch

STACKED_TOKENS = 2048
"""About so many tokens are computed at once."""


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
    task: Task,
    examples: Sequence[Example],
    *,
    batch: int,
    rows: Sequence[int] | None = None,
    difficulty: Sequence[float] | None = None,
    stacked_tokens: int = STACKED_TOKENS,
) -> list[StackedCalls]:
    """Group examples into calls of the target's batch size and stack calls of equal shape.

    Which examples share a call depends on their lengths and order alone.

    Args:
        task: Collates examples.
        examples: The split, in its order.
        batch: Examples in one call. What is left over at the end makes a smaller call.
        rows: Positions of the examples to take; None takes all.
        difficulty: Of each example of the split: calls are stacked with others that are as difficult. None stacks them
            as they come.
        stacked_tokens: About how many tokens (images count their own) are computed at once.
    """
    order = sorted(range(len(examples)) if rows is None else rows, key=lambda row: examples[row].length)
    calls = [order[start : start + batch] for start in range(0, len(order), batch)]
    stacks: dict[tuple[int, int], list[list[int]]] = {}
    for call in calls:
        stacks.setdefault((max(examples[row].length for row in call), len(call)), []).append(call)
    found = []
    for (length, size), members in stacks.items():
        tokens_per_call = size * (length if length > 1 else 32)
        at_once = max(1, stacked_tokens // tokens_per_call)
        if difficulty is not None:
            members.sort(key=lambda call: -fmean(difficulty[row] for row in call))
        for start in range(0, len(members), at_once):
            stacked = tuple(row for call in members[start : start + at_once] for row in call)
            inputs = task.collate([examples[row] for row in stacked])
            found.append(StackedCalls(inputs=inputs, examples_per_call=size, rows=stacked))
    return found
