from dataclasses import replace

import numpy as np
import pytest
from tiny_tables import feed_forward, table_of

from controller.samplers.choices import ChoiceGrid, costs_in_order, grid_of
from controller.samplers.context import SamplerContext
from evaluators.costs import CostModel
from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor
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


def priced(structure: ModelStructure, count: int) -> tuple[ChoiceGrid, np.ndarray, np.ndarray, np.ndarray]:
    """A grid, random points of it, and their costs by the grid and added up operator by operator."""
    formats = ("fp32", "w8a8", "w8a8s")
    space = build_space(structure, SpaceConfig(), target_formats=formats, channel_multiple=8)
    times_ms = {operator: 1.0 + number / 7 for number, operator in enumerate(required_operators(space, WORKLOAD))}
    predictor = LatencyPredictor(table_of(times_ms).with_correction(WORKLOAD, FIT), WORKLOAD)
    costs = CostModel(structure, predictor)
    grid = grid_of(SamplerContext(seed=0, space=space, cost_of=costs.costs))
    options = np.random.default_rng(0).integers(grid.counts, size=(count, grid.units))
    policies = [space.from_parameters(grid.parameters(point)) for point in options]
    naive = np.array([costs_in_order(costs.costs(policy)) for policy in policies])
    return grid, options, grid.estimate(options), naive


def test_costs_of_units_that_share_nothing_are_exact() -> None:
    grid, _, found, naive = priced(TRANSFORMER, 200)
    assert grid.is_additive
    assert found == pytest.approx(naive, rel=1e-12)
    assert len(np.unique(naive[:, 0])) > 20


def test_what_units_read_together_counts_also_where_none_is_left() -> None:
    grid, options, found, naive = priced(replace(TRANSFORMER, fixed=(*TRANSFORMER.fixed, POSITIONS)), 400)
    policies = [grid.parameters(point) for point in options]
    is_gone = np.array([not any(policy[f"{name}:keep"] for name in "abc") for policy in policies])
    assert 0 < is_gone.sum() < len(options)
    assert found[~is_gone] == pytest.approx(naive[~is_gone], rel=1e-12)
    assert np.all(found[is_gone, 0] > naive[is_gone, 0])


def test_a_grid_tells_where_layers_lie_between_units() -> None:
    grid, _, found, naive = priced(CONVOLUTIONAL, 50)
    assert not grid.is_additive
    assert found != pytest.approx(naive, rel=1e-3)
