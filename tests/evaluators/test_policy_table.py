import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tables import feed_forward, table_of

from evaluators.additive import CHUNK, AdditiveCosts
from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.policy_table import PolicyTable
from evaluators.latency.workload import Workload
from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit, ResidualSum
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from search_spaces.units import FixedPart, ModelStructure, PartKind, UnitKind
from workers.profile import required_operators

WORKLOAD = Workload(batch=2, sequence_length=4)
FIT = Correction(scale=1.3, overhead_ms=0.4, models=5, median_error_pct=1.0, max_error_pct=2.0)


def layer(name: str, rows: str | None, columns: str | None, out_channels: int, in_channels: int) -> ChannelLayer:
    kind = ChannelLayerKind.CONVOLUTION
    shape = {"kernel": 1, "stride": 1, "height": 4, "width": 4}
    return ChannelLayer(
        layer=name,
        kind=kind,
        rows=rows,
        columns=columns,
        out_channels=out_channels,
        in_channels=in_channels,
        **shape,
    )


TRANSFORMER = ModelStructure(
    architecture="test",
    units=(feed_forward("a", 64), feed_forward("b", 32), feed_forward("c", 64)),
    fixed=(FixedPart(kind=PartKind.LAYER_NORM, width=(16,), count=3),),
    fixed_bytes=0,
)
SHARED_PART = replace(
    TRANSFORMER,
    fixed=(*TRANSFORMER.fixed, FixedPart(kind=PartKind.POSITIONS, width=(4,), only_for=UnitKind.FEED_FORWARD)),
)
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


def space_of(structure: ModelStructure) -> SearchSpace:
    formats = ("fp32", "w8a8", "w8a8s")
    return build_space(structure, SpaceConfig(), target_formats=formats, channel_multiple=8)


def predictor_of(space: SearchSpace) -> LatencyPredictor:
    """A table with another time for every operator, and a correction."""
    times_ms = {operator: 1.0 + number / 7 for number, operator in enumerate(required_operators(space, WORKLOAD))}
    table = table_of(times_ms)
    return LatencyPredictor(table.with_correction(WORKLOAD, FIT), WORKLOAD)


@pytest.mark.parametrize(
    "structure", [TRANSFORMER, SHARED_PART, CONVOLUTIONAL], ids=["transformer", "shared part", "convolutional"]
)
def test_latencies_are_those_of_the_predictor(structure):
    space = space_of(structure)
    predictor = predictor_of(space)
    table = PolicyTable(structure, predictor, {unit.name: space.choices(unit.name) for unit in structure.units})
    generator = random.Random(0)
    options = np.array([[generator.randrange(len(offered)) for offered in table.choices] for _ in range(200)])
    # One point leaves everything out that can be.
    options[0] = [next((n for n, c in enumerate(offered) if c.keep == 0), 0) for offered in table.choices]
    naive = [predictor.policy_ms(structure, table.policy(point)) for point in options]
    assert table.latency_ms(options) == pytest.approx(naive, rel=1e-12)
    assert len(set(naive)) > 20


def test_an_option_that_a_unit_lacks_is_refused():
    space = space_of(TRANSFORMER)
    table = PolicyTable(TRANSFORMER, predictor_of(space), {u.name: space.choices(u.name) for u in TRANSFORMER.units})
    options = np.zeros((1, 3), dtype=np.int64)
    for wrong in (-1, len(table.choices[1])):
        options[0, 1] = wrong
        with pytest.raises(
            IndexError, match=r"position of one of the unit's choices; the units have \[.*got positions"
        ):
            table.latency_ms(options)
    assert table.latency_ms(np.empty((0, 3), dtype=np.int64)).shape == (0,)


@settings(max_examples=30)
@given(
    units=st.integers(1, 6),
    width=st.integers(1, 5),
    costs=st.integers(1, 3),
    rows=st.sampled_from([0, 1, CHUNK, CHUNK + 1]),
    seed=st.integers(0, 99),
)
def test_additive_costs_are_the_naive_sum(units, width, costs, rows, seed):
    generator = np.random.default_rng(seed)
    base, increments = generator.normal(size=costs), generator.normal(size=(units, width, costs))
    options = generator.integers(0, width, (rows, units))
    naive = np.array([base + sum(increments[u, o] for u, o in enumerate(point)) for point in options[-5:]])
    found = AdditiveCosts(base, increments).of(options)
    assert found.shape == (rows, costs)
    assert found[-5:] == pytest.approx(naive.reshape(-1, costs))


def test_points_may_have_any_leading_shape():
    costs = AdditiveCosts(np.array([1.0]), np.array([[[0.0], [2.0]], [[0.0], [np.nan]]]))
    assert costs.of(np.array([1, 0])).tolist() == [3.0]
    assert costs.of(np.zeros((2, 3, 2), dtype=np.int64)).shape == (2, 3, 1)
    assert np.isnan(costs.of(np.array([0, 1]))).all()
    with pytest.raises(IndexError, match="position from 0 to 1; got 0 to 2"):
        costs.of(np.array([0, 2]))
