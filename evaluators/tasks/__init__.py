"""Tasks: how rows become model inputs, and how outputs are scored."""

from evaluators.tasks import (  # noqa: F401  (registers)
    causal_lm,
    image_classification,
    sentence_similarity,
    seq2seq_lm,
    text_classification,
)
from evaluators.tasks.base import TASKS, Example, Task, TaskError

__all__ = ["TASKS", "Example", "Task", "TaskError"]
