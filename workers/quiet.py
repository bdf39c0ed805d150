"""Silence for libraries that draw progress bars while models and data are read."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch the progress bars of transformers and datasets off while the block runs, and back to what they were."""
    import datasets
    from transformers.utils import logging

    bars, rows = logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()
        if rows:
            datasets.enable_progress_bars()
