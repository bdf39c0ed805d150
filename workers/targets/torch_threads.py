"""How torch runs a model on the CPU: without gradients, with a pinned number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_inference(threads: int) -> Iterator[None]:
    """Set the number of threads, and no gradients, while the block runs.

    Args:
        threads: Threads of one operator.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
