"""Tests of the workers compute on one thread, as workers do: matrices are tiny, and the cores are shared."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
