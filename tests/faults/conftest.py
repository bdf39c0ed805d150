"""What several faults need."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def pickled_by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let workers have what the test's module defines: they can't import it."""
    import ray

    module = sys.modules[request.module.__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(module)
