"""Parts outside units that only some units read: gone with the last of them, wherever costs are added up."""

from dataclasses import replace

import pytest
from tiny_tables import feed_forward, table_of

from evaluators.costs import CostModel, least_energy_mj, least_latency_ms
from evaluators.latency.block_times import block_times
from evaluators.latency.breakdown import break_down
from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.workload import Operator, OperatorKind, Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import FixedPart, ModelStructure, PartKind, UnitKind
from workers.profile import required_operators

WORKLOAD = Workload(batch=2, sequence_length=4)
POSITIONS = FixedPart(kind=PartKind.POSITIONS, width=(4,), only_for=UnitKind.FEED_FORWARD)
EMBEDDING = FixedPart(kind=PartKind.EMBEDDING, width=(30, 16), count=2)
STRUCTURE = ModelStructure(
    architecture="x",
    units=(feed_forward("a.f"), feed_forward("b.f")),
    fixed=(POSITIONS, EMBEDDING, FixedPart(kind=PartKind.RMS_NORM, width=(16,))),
    fixed_bytes=0,
    stacks=(("a", "b"),),
)
SPACE = build_space(STRUCTURE, SpaceConfig(keep=(1, 0.5, 0)), target_formats=("fp32",), channel_multiple=8)
FIT = Correction(scale=1.3, other_scale=2.0, overhead_ms=0.4, models=5, median_error_pct=1.0, max_error_pct=2.0)
GONE = Policy({"a.f": Choice(0, "fp32"), "b.f": Choice(0, "fp32")})
KEPT = GONE.replace(**{"b.f": Choice(32, "fp32")})


@pytest.fixture
def model() -> CostModel:
    times = {o: 1.0 + n / 7 for n, o in enumerate(required_operators(SPACE, WORKLOAD))}
    table = table_of(times).with_correction(WORKLOAD, FIT)
    return CostModel(STRUCTURE, LatencyPredictor(table, WORKLOAD))


@pytest.mark.parametrize("policy", [GONE, KEPT], ids=["gone", "kept"])
def test_every_sum_counts_what_the_policy_runs(policy: Policy, model: CostModel) -> None:
    counts, predictor = operators(STRUCTURE, policy, WORKLOAD), model.predictor
    positions = Operator.of(OperatorKind.POSITIONS, batch=2, sequence=4, columns=4)
    assert counts[positions] == (policy is KEPT)
    expected_ms = 0.4 + sum(
        count * predictor.operator_ms(o) * (1.3 if o.kind is OperatorKind.LINEAR else 2.0)
        for o, count in counts.items()
    )
    assert predictor.policy_ms(STRUCTURE, policy) == pytest.approx(expected_ms)
    assert break_down(STRUCTURE, policy, predictor).latency_ms == pytest.approx(expected_ms)
    times = block_times(STRUCTURE, policy, predictor)
    assert times.whole_ms == pytest.approx(expected_ms)
    # The last normalisation alone stands behind the blocks.
    norm = Operator.of(OperatorKind.RMS_NORM, tokens=8, features=16)
    assert times.whole_ms - times.until_ms["b"] == pytest.approx(2.0 * predictor.operator_ms(norm))
    expected_mj = model.energy.fixed_mj(replace(STRUCTURE, fixed=())) + sum(
        count * model.energy.operator_mj(o) for o, count in counts.items()
    )
    assert model.energy.policy_mj(STRUCTURE, policy) == pytest.approx(expected_mj)


def test_the_least_costs_are_those_of_a_policy_that_leaves_all_out(model: CostModel) -> None:
    assert least_latency_ms(SPACE, model.predictor) == pytest.approx(model.predictor.policy_ms(STRUCTURE, GONE))
    assert least_energy_mj(SPACE, model.energy) == pytest.approx(model.energy.policy_mj(STRUCTURE, GONE))
