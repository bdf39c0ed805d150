"""What a task provides. Shape letters: B batch, S sequence, C classes, T targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from evaluators.comparison import DISTRIBUTIONS, Comparison
from search_spaces.architectures import ARCHITECTURES
from search_spaces.registry import Registry

if TYPE_CHECKING:
    import torch


class TaskError(ValueError):
    """Rows do not fit the task or the model."""


IGNORED = -100
"""Target of a token that is not scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One encoded row.

    Attributes:
        inputs: Model inputs by name, without a batch axis; of a pair of texts with an axis of length 2 in its place.
        label: Class index; or the score of a pair; or the tokens that a language model should give, as int64 of shape
            (S,), `IGNORED` where nothing is asked.
        length: Tokens; 1 where all examples have the same shape.
    """

    inputs: Mapping[str, torch.Tensor]
    label: float | torch.Tensor
    length: int


class Task(Protocol):
    """Turns rows into batches and outputs into scores, for one model and its processor.

    A task may say more, see `reads_pairs`, `comparison_of` and `score_together`.

    Attributes:
        auto_model: Name of the transformers class that loads a model of this task; or `module:Class` of another one
            with the same methods and mapping.
        auto_processor: Name of the transformers class that loads its tokenizer or image processor.
        metric: Name of the metric; larger is better.
        dynamic_axes: Input name to axes that vary, by number, for export.
        right_or_wrong: Whether the metric of an example is 1 or 0 and nothing else.
        labelled: Whether rows have a label; a language model finds its targets in the text.
        byte_level: Whether a model without a tokenizer reads bytes.
    """

    auto_model: str
    auto_processor: str
    metric: str
    dynamic_axes: Mapping[str, Mapping[int, str]]
    right_or_wrong: bool
    labelled: bool
    byte_level: bool

    def __init__(self, processor: Any, config: Any) -> None: ...

    def cut(self, text: str, *, max_length: int) -> Sequence[Any] | None:
        """Inputs that a whole text file holds; None where each of its lines is one."""
        ...

    def encode(self, inputs: Sequence[Any], labels: Sequence[Any], *, max_length: int) -> list[Example]:
        """Encode rows.

        Raises:
            TaskError: An input or a label does not fit; the message gives the row.
        """
        ...

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Stack examples to a batch, padded to the longest of them; a pair takes two rows, one after the other."""
        ...

    def random_inputs(self, batch: int, sequence_length: int, *, seed: int) -> dict[str, torch.Tensor]:
        """A batch of whole inputs without padding, for timing and for tracing; the length means nothing to images."""
        ...

    def targets(self, examples: Sequence[Example]) -> torch.Tensor:
        """What the outputs are compared with: shape (B,), or (B, S) padded with `IGNORED` where each token has one."""
        ...

    def score(self, logits_TC: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
        """The metric of each target, as float32 of shape (T,); the mean over an example's targets is its score."""
        ...

    def chance(self, labels: Sequence[Any]) -> float:
        """What the best constant answer reaches on these labels."""
        ...


TASKS: Registry[type[Task]] = Registry("task", entry_point_group="paretrim.tasks")


def auto_model_of(task: Task | type[Task]) -> Any:
    """The class that loads the task's models: of transformers, or of the module that `auto_model` names before it."""
    module, _, name = task.auto_model.rpartition(":")
    return getattr(import_module(module or "transformers"), name)


def reads_pairs(task: Task | type[Task]) -> bool:
    """Whether an input is a pair, of which the model sees one part at a time; a task says so by `pairs = True`."""
    return bool(getattr(task, "pairs", False))


def comparison_of(task: Task) -> Comparison:
    """How outputs are compared with the dense model's: a task's `comparison`, else as distributions over classes."""
    found: Comparison = getattr(task, "comparison", DISTRIBUTIONS)
    return found


def score_together(task: Task, scores_N: torch.Tensor, labels: Sequence[Any]) -> torch.Tensor:
    """What each example has of a metric that is no mean over examples, such as a correlation.

    Args:
        task: Makes it in a method of this name, which takes scores and labels. Without the method scores stay.
        scores_N: What `Task.score` made of each example.
        labels: The examples' labels.

    Returns:
        Values of shape (N,) whose mean is the metric.
    """
    together = getattr(task, "score_together", None)
    found: torch.Tensor = scores_N if together is None else together(scores_N, labels)
    return found


def longest_input(config: Any, max_length: int) -> int:
    """Tokens at which inputs are cut: `max_length`, or what the model takes where that is less."""
    name = str(getattr(config, "model_type", ""))
    if name in ARCHITECTURES:
        longest = ARCHITECTURES.get(name).max_tokens(config)
    else:
        longest = getattr(config, "max_position_embeddings", None)
    return min(max_length, longest or max_length)


def class_index(label: Any, config: Any, *, row: int) -> int:
    """Read a label as an index into the model's classes.

    Args:
        label: An index, or the name of a class.
        config: The model's configuration, with `num_labels` and `label2id`.
        row: Number of the row, for the message.

    Raises:
        TaskError: The model has no such class.
    """
    names = {str(name): int(index) for name, index in (getattr(config, "label2id", None) or {}).items()}
    # A table with one label missing or broken hands over all others as floats; those are not to blame.
    whole = isinstance(label, float) and label.is_integer()
    text = str(int(label) if whole else label).strip()
    if text in names:
        return names[text]
    try:
        index = int(text)
    except ValueError:
        index = -1
    if not 0 <= index < config.num_labels:
        raise TaskError(
            f"labels are 0 to {config.num_labels - 1} or one of {sorted(names)}; got {label!r} in row {row}; "
            "check data.columns.label, or take the model that belongs to these labels"
        )
    return index
