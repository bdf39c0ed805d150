import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tables import feed_forward, table_of

from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor, MissingEntryError
from evaluators.latency.workload import Operator, OperatorKind, Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.units import FixedPart, ModelStructure, PartKind

WORKLOAD = Workload(batch=1, sequence_length=8)
UNIT = feed_forward()
STRUCTURE = ModelStructure(
    architecture="x", units=(UNIT,), fixed=(FixedPart(kind=PartKind.LAYER_NORM, width=(16,), count=3),), fixed_bytes=0
)


def linear(in_features: int, out_features: int, tokens: int = 8) -> Operator:
    return Operator.of(
        OperatorKind.LINEAR, format="fp32", tokens=tokens, in_features=in_features, out_features=out_features
    )


def gelu(features: int) -> Operator:
    return Operator.of(OperatorKind.ACTIVATION, function="gelu", tokens=8, features=features)


def model_times() -> dict[Operator, float]:
    """Times proportional to the work, for two widths of the unit."""
    times = {Operator.of(OperatorKind.LAYER_NORM, tokens=8, features=16): 0.05}
    for width in (20, 64):
        times |= {linear(16, width): 0.01 * width, linear(width, 16): 0.02 * width, gelu(width): 0.001 * width}
    return times


def test_a_measured_operator_is_exact() -> None:
    predictor = LatencyPredictor(table_of(model_times()), WORKLOAD)
    assert all(predictor.operator_ms(operator) == time_ms for operator, time_ms in model_times().items())


@given(
    exponent=st.floats(0.2, 2),
    widths=st.lists(st.integers(1, 4096), min_size=2, max_size=6, unique=True),
    share=st.floats(0, 1),
)
def test_power_laws_are_interpolated_exactly(exponent: float, widths: list[int], share: float) -> None:
    predictor = LatencyPredictor(table_of({gelu(width): 1e-3 * width**exponent for width in widths}), WORKLOAD)
    width = min(widths) + round(share * (max(widths) - min(widths)))
    assert predictor.operator_ms(gelu(width)) == pytest.approx(1e-3 * width**exponent)


@given(times=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6), width=st.integers(1, 60))
def test_an_interpolated_time_lies_between_its_neighbours(times: list[float], width: int) -> None:
    grid = [10 * (index + 1) for index in range(len(times))]
    predictor = LatencyPredictor(table_of({gelu(g): t for g, t in zip(grid, times, strict=True)}), WORKLOAD)
    if not grid[0] <= width <= grid[-1]:
        with pytest.raises(MissingEntryError, match="the table lacks"):
            predictor.operator_ms(gelu(width))
        return
    low = max(i for i, g in enumerate(grid) if g <= width)
    high = min(i for i, g in enumerate(grid) if g >= width)
    bounds = sorted([times[low], times[high]])
    assert bounds[0] * (1 - 1e-9) <= predictor.operator_ms(gelu(width)) <= bounds[1] * (1 + 1e-9)


def test_a_linear_operator_takes_the_closer_pair_of_neighbours() -> None:
    times = {linear(16, 8): 1.0, linear(16, 128): 4.0, linear(8, 32): 2.0, linear(32, 32): 2.0}
    assert LatencyPredictor(table_of(times), WORKLOAD).operator_ms(linear(16, 32)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "operator",
    [
        linear(16, 65),
        linear(16, 15),
        linear(16, 32, tokens=16),
        linear(17, 32),
        gelu(8),
        Operator.of(OperatorKind.ACTIVATION, function="relu", tokens=8, features=32),
        Operator.of(OperatorKind.LINEAR, format="w8a8", tokens=8, in_features=16, out_features=16),
    ],
    ids=str,
)
def test_nothing_is_extrapolated(operator: Operator) -> None:
    with pytest.raises(MissingEntryError, match=str(operator)):
        LatencyPredictor(table_of(model_times()), WORKLOAD).operator_ms(operator)


def test_a_policy_is_the_sum_of_its_operators() -> None:
    predictor = LatencyPredictor(table_of(model_times()), WORKLOAD)
    policy = Policy({"f": Choice(32, "fp32")})
    naive = sum(n * predictor.operator_ms(o) for o, n in operators(STRUCTURE, policy, WORKLOAD).items())
    assert predictor.policy_ms(STRUCTURE, policy) == pytest.approx(naive)
    assert naive == pytest.approx(3 * 0.05 + 32 * 0.031)
    prediction = predictor.predict(STRUCTURE, policy)
    assert (prediction.low_ms, prediction.high_ms, prediction.corrected) == (None, None, False)


def test_a_unit_left_out_costs_nothing() -> None:
    assert LatencyPredictor(table_of(model_times()), WORKLOAD).unit_ms(UNIT, Choice(0, "fp32")) == 0


def test_a_correction_applies_to_its_workload_only() -> None:
    fit = Correction(scale=1.2, overhead_ms=0.5, models=4, median_error_pct=1, max_error_pct=10)
    corrected = table_of(model_times()).with_correction(WORKLOAD, fit)
    predictor = LatencyPredictor(corrected, WORKLOAD)
    policy = Policy({"f": Choice(20, "fp32")})
    raw = 3 * 0.05 + 20 * 0.031
    assert predictor.raw_ms(STRUCTURE, policy) == pytest.approx(raw)
    assert predictor.policy_ms(STRUCTURE, policy) == pytest.approx(1.2 * raw + 0.5)
    assert math.isclose(
        predictor.policy_ms(STRUCTURE, policy),
        predictor.fixed_ms(STRUCTURE) + predictor.unit_ms(UNIT, policy["f"]),
    )
    prediction = predictor.predict(STRUCTURE, policy)
    assert prediction.corrected
    assert prediction.low_ms is not None
    assert prediction.high_ms is not None
    assert prediction.low_ms < prediction.latency_ms < prediction.high_ms
    assert LatencyPredictor(corrected, Workload(batch=2, sequence_length=4)).correction is None


def test_beyond_what_was_measured_nobody_knows_how_far_a_prediction_errs() -> None:
    fit = Correction(scale=1.2, overhead_ms=0.5, models=4, median_error_pct=1, max_error_pct=10)
    times = {o: ms for o, ms in model_times().items() if "64" not in str(o)}
    times |= {linear(16, 24): 0.24, linear(24, 16): 0.48, gelu(24): 0.024}
    predictor = LatencyPredictor(table_of(times).with_correction(WORKLOAD, fit), WORKLOAD, allow_extrapolation=True)
    outside = predictor.predict(STRUCTURE, Policy({"f": Choice(32, "fp32")}))
    assert (outside.low_ms, outside.high_ms, outside.corrected, outside.extrapolated) == (None, None, True, True)
    assert predictor.predict(STRUCTURE, Policy({"f": Choice(20, "fp32")})).low_ms is not None


def test_a_check_names_all_that_is_missing() -> None:
    predictor = LatencyPredictor(table_of(model_times()), WORKLOAD)
    predictor.check(model_times())
    with pytest.raises(MissingEntryError, match=r"features=1 tokens=8; .* and 1 more"):
        predictor.check([gelu(1), gelu(2), gelu(3), gelu(4), gelu(32)])
