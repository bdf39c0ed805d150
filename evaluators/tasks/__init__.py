"""Tasks: how rows become model inputs, and how outputs are scored."""

from evaluators.tasks import causal_lm, image_classification, seq2seq_lm, text_classification  # noqa: F401  (registers)
from evaluators.tasks.base import TASKS, Example, Task, TaskError

__all__ = ["TASKS", "Example", "Task", "TaskError"]
