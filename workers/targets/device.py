"""A device that operators are timed on: what a target brings so that its latency table can be measured."""

from collections.abc import Callable, Sequence
from typing import Protocol

from evaluators.latency.table import Fingerprint
from evaluators.latency.workload import Operator
from search_spaces.registry import Registry


class Device(Protocol):
    """Times single operators with the kernels that the exported model runs."""

    def fingerprint(self) -> Fingerprint:
        """Return what the times hold for."""
        ...

    def clocks(self) -> str | None:
        """Return what is known of the clock frequency now, in a few words."""
        ...

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> Sequence[float]:
        """Time an operator afresh: new weights, warm-up, then `runs` runs.

        Args:
            operator: What to time.
            runs: Timed runs; fewer where they take long.
            seed: Seed of weights and inputs.
            working_set_bytes: Bytes that a model of this operator's format reads between two runs of the same weights.
                They decide from which cache, or from memory, the weights come.

        Returns:
            Milliseconds of one operator in each run, above 0.
        """
        ...


DEVICES: Registry[Callable[[int], Device]] = Registry("device", entry_point_group="paretrim.targets")
"""Target name to a function from a number of threads to the device."""
