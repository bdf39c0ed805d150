"""A small model, and devices whose times follow from the operator alone."""

from collections.abc import Callable

import pytest

from evaluators.latency.table import Fingerprint
from evaluators.latency.workload import Operator
from search_spaces.units import Branch, FixedPart, ModelStructure, PartKind, Producer, Unit, UnitKind


class SteadyDevice:
    """Times operators by a formula.

    Args:
        cost: Milliseconds of an operator; None adds its sizes up.
        noise: Every other run of a sample takes this share longer.
        pace: Factor on the times of the n-th sample.
    """

    def __init__(
        self,
        cost: Callable[[Operator], float] | None = None,
        *,
        noise: float = 0.0,
        pace: Callable[[int], float] = lambda number: 1.0,
    ) -> None:
        self.calls: list[tuple[Operator, int]] = []
        self.cost = cost or (lambda operator: float(sum(size for _, size in operator.axes)))
        self.noise, self.pace = noise, pace

    @property
    def sampled(self) -> list[Operator]:
        return [operator for operator, _ in self.calls]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(device="steady", runtime="none", runtime_version="1", threads=1, os="none")

    def clocks(self) -> str | None:
        return "1 GHz"

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> list[float]:
        base = self.cost(operator) * self.pace(len(self.calls))
        self.calls.append((operator, working_set_bytes))
        return [base * (1 + self.noise * (index % 2)) for index in range(runs)]


@pytest.fixture
def steady_device() -> type[SteadyDevice]:
    return SteadyDevice


@pytest.fixture
def structure() -> ModelStructure:
    """A vision transformer of one layer, hidden size 64."""
    attention = Unit(
        name="attention",
        kind=UnitKind.ATTENTION,
        groups=4,
        producers=tuple(Producer(layer=name, rows_per_group=16) for name in ("q", "k", "v")),
        consumer="o",
        columns_per_group=16,
        in_features=64,
        out_features=64,
        branch=Branch(module="attention"),
    )
    feed_forward = Unit(
        name="feed_forward",
        kind=UnitKind.FEED_FORWARD,
        groups=512,
        producers=(Producer(layer="up", rows_per_group=1),),
        consumer="down",
        columns_per_group=1,
        in_features=64,
        out_features=64,
        branch=Branch(module="feed_forward"),
        activation="gelu",
    )
    fixed = (
        FixedPart(kind=PartKind.CONVOLUTION, width=(1, 64, 2, 8), per_token=False),
        FixedPart(kind=PartKind.LAYER_NORM, width=(64,), count=3),
        FixedPart(kind=PartKind.EMBEDDING, width=(50, 64)),
        FixedPart(kind=PartKind.LINEAR, width=(64, 10), per_token=False),
    )
    return ModelStructure(architecture="vit", units=(attention, feed_forward), fixed=fixed, fixed_bytes=0)
