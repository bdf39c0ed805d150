from dataclasses import replace

import numpy as np
import pytest
from tiny_tables import feed_forward, table_of

from controller.job import Constraints
from controller.samplers.budget import CostBudget
from controller.samplers.choices import ChoiceGrid, costs_in_order, grid_of
from controller.samplers.context import SamplerContext
from evaluators.costs import CostModel
from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import CacheCurve
from evaluators.latency.workload import Workload
from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit, ResidualSum
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import FixedPart, ModelStructure, PartKind, UnitKind
from workers.profile import required_operators

WORKLOAD = Workload(batch=2, sequence_length=4)
FIT = Correction(scale=1.3, overhead_ms=0.4, models=5, median_error_pct=1.0, max_error_pct=2.0)


def layer(name: str, rows: str | None, columns: str | None, out_channels: int, in_channels: int) -> ChannelLayer:
    return ChannelLayer(
        layer=name,
        kind=ChannelLayerKind.CONVOLUTION,
        rows=rows,
        columns=columns,
        out_channels=out_channels,
        in_channels=in_channels,
        kernel=1,
        stride=1,
        height=4,
        width=4,
    )


TRANSFORMER = ModelStructure(
    architecture="test",
    units=(feed_forward("a", 64), feed_forward("b", 32), feed_forward("c", 64)),
    fixed=(FixedPart(kind=PartKind.LAYER_NORM, width=(16,), count=3),),
    fixed_bytes=0,
)
POSITIONS = FixedPart(kind=PartKind.POSITIONS, width=(4,), only_for=UnitKind.FEED_FORWARD)
CONVOLUTIONAL = ModelStructure(
    architecture="test",
    units=(
        ChannelUnit(
            name="outer",
            groups=16,
            channel_layers=(layer("stem", "outer", None, 16, 3), layer("second", "outer", "inner", 16, 32)),
            sums=(ResidualSum(height=4, width=4),),
        ),
        ChannelUnit(name="inner", groups=32, channel_layers=(layer("first", "inner", "outer", 32, 16),)),
    ),
    fixed=(),
    fixed_bytes=0,
)


CURVES = (
    CacheCurve(format="fp32", tokens=8, sizes_bytes=(1_000, 4_000, 16_000), times=(0.5, 0.8, 1.0)),
    CacheCurve(format="w8a8", tokens=8, sizes_bytes=(500, 8_000), times=(0.9, 1.0)),
)


class Priced:
    """A grid, random points of it, and their costs by the grid and added up operator by operator."""

    def __init__(self, structure: ModelStructure, count: int, caches: tuple[CacheCurve, ...] = ()) -> None:
        formats = ("fp32", "w8a8", "w8a8s")
        self.space = build_space(structure, SpaceConfig(), target_formats=formats, channel_multiple=8)
        operators = required_operators(self.space, WORKLOAD)
        times_ms = {operator: 1.0 + number / 7 for number, operator in enumerate(operators)}
        table = table_of(times_ms, working_set_bytes=12_000, caches=caches).with_correction(WORKLOAD, FIT)
        self.costs = CostModel(structure, LatencyPredictor(table, WORKLOAD))
        self.grid: ChoiceGrid = grid_of(SamplerContext(seed=0, space=self.space, cost_of=self.costs))
        self.options = np.random.default_rng(0).integers(self.grid.counts, size=(count, self.grid.units))
        self.policies = [self.space.from_parameters(self.grid.parameters(point)) for point in self.options]
        self.found = self.grid.estimate(self.options)
        self.naive = np.array([costs_in_order(self.costs(policy)) for policy in self.policies])


def test_costs_of_units_that_share_nothing_are_sums() -> None:
    priced = Priced(TRANSFORMER, 200)
    assert priced.grid.is_additive
    assert priced.found == pytest.approx(priced.naive, rel=1e-12)
    sums = priced.grid.base + sum(priced.grid.increments[unit, priced.options[:, unit]] for unit in range(3))
    assert sums == pytest.approx(priced.naive, rel=1e-12)
    assert len(np.unique(priced.naive[:, 0])) > 20


def test_weights_that_stay_in_a_cache_make_latencies_no_sums_but_exact() -> None:
    priced = Priced(TRANSFORMER, 200, CURVES)
    assert not priced.grid.is_additive
    assert priced.grid.is_exact
    assert priced.found == pytest.approx(priced.naive, rel=1e-12)
    assert priced.naive[:, 0].min() > 0
    # What options add is what units take in a policy whose weights stay in a cache: sums are bounds from below.
    sums = priced.grid.base + sum(priced.grid.increments[unit, priced.options[:, unit]] for unit in range(3))
    assert (sums[:, 0] <= priced.naive[:, 0] * (1 + 1e-12)).all()
    start = priced.space.from_parameters(priced.grid.parameters(np.zeros(3, dtype=np.int64)))
    inside = priced.costs.predictor.at(0)
    for policy, options in zip(priced.policies[:20], priced.options[:20], strict=True):
        for number, unit in enumerate(TRANSFORMER.units):
            added = inside.unit_ms(unit, policy[unit.name]) - inside.unit_ms(unit, start[unit.name])
            assert priced.grid.increments[number, options[number], 0] == pytest.approx(added, abs=1e-12)


@pytest.mark.parametrize("caches", [(), CURVES], ids=["", "caches"])
def test_what_units_read_together_goes_with_the_last_of_them(caches: tuple[CacheCurve, ...]) -> None:
    priced = Priced(replace(TRANSFORMER, fixed=(*TRANSFORMER.fixed, POSITIONS)), 400, caches)
    is_gone = np.array([not any(policy[name].keep for name in "abc") for policy in priced.policies])
    assert 0 < is_gone.sum() < len(priced.policies)
    assert priced.found == pytest.approx(priced.naive, rel=1e-12)


@pytest.mark.parametrize("caches", [(), CURVES], ids=["", "caches"])
def test_latencies_of_layers_that_lie_between_units_are_exact(caches: tuple[CacheCurve, ...]) -> None:
    priced = Priced(CONVOLUTIONAL, 50, caches)
    assert not priced.grid.is_additive
    assert not priced.grid.is_exact
    assert priced.found[:, 0] == pytest.approx(priced.naive[:, 0], rel=1e-12)


def test_draws_under_a_bound_differ_where_weights_stay_in_a_cache() -> None:
    priced = Priced(TRANSFORMER, 200, CURVES)
    bound = float(np.quantile(priced.naive[:, 0], 0.4))
    constraints = Constraints(max_latency_ms=bound)
    context = SamplerContext(seed=0, space=priced.space, cost_of=priced.costs, constraints=constraints)
    budget, generator = CostBudget(context), np.random.default_rng(0)
    drawn = [budget.draw(target, generator) for target in budget.targets(context, 10) for _ in range(10)]
    latencies = np.array([budget.grid.exact(options)[0] for options in drawn])
    assert (latencies <= bound).all()
    assert len({options.tobytes() for options in drawn}) > 15
    assert latencies.max() > 0.7 * bound
    low, high = budget.range_of(0)
    assert low <= latencies.min() * (1 + 1e-12)
    assert latencies.max() <= high * (1 + 1e-12) <= bound * (1 + 1e-9)


def test_an_option_that_a_unit_lacks_is_refused() -> None:
    priced = Priced(TRANSFORMER, 1)
    table = priced.costs.latency_table({name: priced.space.choices(name) for name in "abc"})
    for wrong in (-1, 99):
        with pytest.raises(IndexError, match=r"position of one of the unit's choices; the units have \[.*got pos"):
            table.latency_ms(np.array([[0, wrong, 0]]))
    assert table.latency_ms(np.empty((0, 3), dtype=np.int64)).shape == (0,)
