"""Tasks: how rows become model inputs, and how outputs are scored."""

from evaluators.tasks import image_classification, text_classification  # noqa: F401  (importing registers them)
from evaluators.tasks.base import TASKS, Example, Task, TaskError

__all__ = ["TASKS", "Example", "Task", "TaskError"]
