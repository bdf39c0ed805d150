import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_tables import feed_forward, table_of

from evaluators.costs import CostModel, least_latency_ms
from evaluators.latency.breakdown import break_down
from evaluators.latency.correction import Correction
from evaluators.latency.fitting import MeasuredModel
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import CacheCurve, LatencyTable, MeasuredPower, parse_table
from evaluators.latency.table.energy import Arithmetic
from evaluators.latency.working_set import CacheCurves, weight_bytes, working_set_bytes
from evaluators.latency.workload import OperatorKind, Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import FixedPart, ModelStructure, PartKind
from workers.profile import required_operators

WORKLOAD = Workload(batch=1, sequence_length=8)
STRUCTURE = ModelStructure(
    architecture="test",
    units=(feed_forward("a", 64), feed_forward("b", 32)),
    fixed=(FixedPart(kind=PartKind.LAYER_NORM, width=(16,), count=3), FixedPart(kind=PartKind.LINEAR, width=(16, 16))),
    fixed_bytes=0,
)
CURVE = CacheCurve(format="fp32", tokens=8, sizes_bytes=(1_000, 4_000, 16_000), times=(0.5, 0.8, 1.0))
FIT = Correction(
    scale=1.3,
    other_scale=0.9,
    operator_overhead_ms=0.01,
    overhead_ms=0.4,
    models=5,
    median_error_pct=1,
    max_error_pct=2,
)
MEASURED_WITH = 12_000


def curve_at(size: float) -> float:
    """Times of the curve between its sizes, by hand: straight in logarithms."""
    points = [(1_000, 0.5), (4_000, 0.8), (16_000, 1.0)]
    if size <= 1_000:
        return 0.5
    for (low, at_low), (high, at_high) in pairwise(points):
        if size <= high:
            share = math.log(size / low) / math.log(high / low)
            return at_low * (at_high / at_low) ** share
    return 1.0


def table(**fields: object) -> LatencyTable:
    space = build_space(STRUCTURE, SpaceConfig(), target_formats=("fp32", "w8a8"), channel_multiple=8)
    times_ms = {operator: 1.0 + number / 7 for number, operator in enumerate(required_operators(space, WORKLOAD))}
    return table_of(times_ms, working_set_bytes=MEASURED_WITH, **fields).with_correction(WORKLOAD, FIT)


POLICIES = [
    Policy({"a": Choice(a, a_format), "b": Choice(b, b_format)})
    for a, a_format in ((64, "fp32"), (32, "fp32"), (64, "w8a8"), (0, "fp32"))
    for b, b_format in ((32, "fp32"), (16, "w8a8"), (0, "fp32"))
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_products_take_the_time_that_the_policys_own_weights_give(policy: Policy) -> None:
    cached = table(caches=(CURVE,))
    rows = {entry.operator: entry.median_ms for entry in cached.entries}
    counts = operators(STRUCTURE, policy, WORKLOAD)
    weights = sum(n * weight_bytes(operator) for operator, n in counts.items())
    expected = FIT.overhead_ms
    for operator, count in counts.items():
        raw_ms = rows[operator]
        if operator.kind is OperatorKind.LINEAR and operator.format == "fp32":
            raw_ms *= curve_at(weights) / curve_at(MEASURED_WITH)
        scale = FIT.scale if operator.kind is OperatorKind.LINEAR else 0.9
        expected += count * (scale * raw_ms + FIT.operator_overhead_ms)
    predictor = LatencyPredictor(cached, WORKLOAD)
    assert predictor.policy_ms(STRUCTURE, policy) == pytest.approx(expected, rel=1e-12)
    inside = predictor.for_policy(STRUCTURE, policy)
    shares = (*predictor.units_ms(STRUCTURE, policy), inside.fixed_ms(STRUCTURE, policy))
    assert sum(shares) == pytest.approx(expected, rel=1e-12)
    assert break_down(STRUCTURE, policy, predictor).latency_ms == pytest.approx(expected, rel=1e-12)
    work = predictor.work_by_operator(counts)
    assert predictor.raw_ms(STRUCTURE, policy) == pytest.approx(sum(n * ms for _, n, ms in work), rel=1e-12)
    MeasuredModel(name="x", work=work, measured_ms=1.0)


def test_a_unit_by_itself_takes_its_measured_time() -> None:
    unit, choice = STRUCTURE.units[0], Choice(64, "fp32")
    cached, plain = (LatencyPredictor(t, WORKLOAD) for t in (table(caches=(CURVE,)), table()))
    assert cached.unit_ms(unit, choice) == plain.unit_ms(unit, choice)
    assert plain.for_policy(STRUCTURE, POLICIES[0]) is plain


def test_rows_that_do_not_say_their_working_set_keep_their_time() -> None:
    cached = table(caches=(CURVE,))
    silent = tuple(entry.model_copy(update={"working_set_bytes": None}) for entry in cached.entries)
    predictor = LatencyPredictor(cached.model_copy(update={"entries": silent}), WORKLOAD)
    plain = LatencyPredictor(table(), WORKLOAD)
    for policy in POLICIES:
        assert predictor.policy_ms(STRUCTURE, policy) == pytest.approx(plain.policy_ms(STRUCTURE, policy), rel=1e-12)


def test_rows_of_a_model_of_another_size_lie_on_the_same_line() -> None:
    cached = table(caches=(CURVE,))
    # The same times as on a machine that had profiled a small model: rows on another place of the curve.
    moved = tuple(
        entry.model_copy(
            update={
                "working_set_bytes": 2_000,
                "median_ms": entry.median_ms * curve_at(2_000) / curve_at(MEASURED_WITH),
            }
        )
        if entry.kind is OperatorKind.LINEAR and entry.format == "fp32" and number % 2
        else entry
        for number, entry in enumerate(cached.entries)
    )
    assert moved != cached.entries
    first, second = (LatencyPredictor(t, WORKLOAD) for t in (cached, cached.model_copy(update={"entries": moved})))
    for keep in (64, 40, 32, 24):
        policy = Policy({"a": Choice(keep, "fp32"), "b": Choice(32, "fp32")})
        assert second.policy_ms(STRUCTURE, policy) == pytest.approx(first.policy_ms(STRUCTURE, policy), rel=1e-12)


def test_no_policy_is_faster_than_the_least_latency() -> None:
    space = build_space(STRUCTURE, SpaceConfig(), target_formats=("fp32", "w8a8"), channel_multiple=8)
    predictor = LatencyPredictor(table(caches=(CURVE,)), WORKLOAD)
    found = [
        predictor.policy_ms(STRUCTURE, Policy({"a": a, "b": b})) for a in space.choices("a") for b in space.choices("b")
    ]
    least = least_latency_ms(space, predictor)
    assert 0.8 * min(found) < least <= min(found) * (1 + 1e-12)


def test_measured_energy_is_power_times_the_time_inside_the_policy() -> None:
    power = MeasuredPower(source="RAPL", watts=dict.fromkeys(Arithmetic, 10.0))
    costs = CostModel(STRUCTURE, LatencyPredictor(table(caches=(CURVE,), energy=power), WORKLOAD))
    for policy in POLICIES:
        found = costs(policy)
        assert found.energy_mj == pytest.approx(10 * found.latency_ms, rel=1e-9)


def test_the_curve_of_the_closest_tokens_is_taken() -> None:
    far = CURVE.model_copy(update={"tokens": 128, "times": (0.1, 0.2, 1.0)})
    curves = CacheCurves(table(caches=(far, CURVE)))
    product = next(e.operator for e in table().entries if e.kind is OperatorKind.LINEAR and e.format == "fp32")
    assert curves.curve_of(product) == 1
    longer = replace(product, axes=tuple((k, 64 if k == "tokens" else v) for k, v in product.axes))
    assert curves.curve_of(longer) == 0
    assert working_set_bytes([(product, 3)]) == 3 * 4 * product.axis("in_features") * product.axis("out_features")


@given(st.floats(1.0, 1e9))
def test_levels_lie_on_the_curve(size: float) -> None:
    curves = CacheCurves(table(caches=(CURVE,)))
    assert curves.level(0, size) == pytest.approx(curve_at(size), rel=1e-9)


def test_a_table_keeps_its_curves_and_one_without_its_text() -> None:
    cached = table(caches=(CURVE,))
    assert parse_table(cached.to_json()) == cached
    assert "caches" not in table().to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": (0.5, 0.4, 1.0)}, "times of a cache curve do not fall"),
        ({"sizes_bytes": (4_000, 1_000, 16_000)}, "sizes of a cache curve rise"),
        ({"times": (0.5, 1.0)}, "has a time for each size; got 2 for 3"),
        ({"times": (0.0, 0.5, 1.0)}, "greater than 0"),
    ],
)
def test_what_is_no_curve_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CacheCurve(**{**CURVE.model_dump(), **changes})


def test_a_format_has_one_curve() -> None:
    with pytest.raises(ValidationError, match="has one cache curve"):
        LatencyTable.model_validate({**table().model_dump(), "caches": (CURVE, CURVE)})
