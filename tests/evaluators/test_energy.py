import pytest
from pydantic import ValidationError
from tiny_tables import feed_forward, table_of

from evaluators.costs import CostModel, least_energy_mj
from evaluators.energy import EnergyPredictor, work_of
from evaluators.latency.correction import Correction
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import (
    EnergyBasis,
    EnergyCoefficients,
    LatencyTable,
    MeasuredPower,
    parse_table,
)
from evaluators.latency.table.energy import HOROWITZ, Arithmetic
from evaluators.latency.workload import AXIS_NAMES, Operator, OperatorKind, Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import FixedPart, ModelStructure, PartKind

WORKLOAD = Workload(batch=2, sequence_length=4)
UNIT = feed_forward()
STRUCTURE = ModelStructure(
    architecture="x", units=(UNIT,), fixed=(FixedPart(kind=PartKind.LAYER_NORM, width=(16,), count=3),), fixed_bytes=0
)
SPACE = build_space(STRUCTURE, SpaceConfig(keep=(0, 0.5, 1)), target_formats=("fp32", "w8a8"), channel_multiple=8)


def _table(energy: EnergyCoefficients | MeasuredPower | None = None) -> LatencyTable:
    policies = [Policy({"f": choice}) for choice in SPACE.choices("f")]
    found = {operator for policy in policies for operator in operators(STRUCTURE, policy, WORKLOAD)}
    return table_of(dict.fromkeys(sorted(found, key=str), 0.5), energy=energy)


def _linear(format_name: str) -> Operator:
    return Operator.of(OperatorKind.LINEAR, format=format_name, tokens=8, in_features=16, out_features=64)


def test_a_product_multiplies_reads_weights_and_moves_rows() -> None:
    work = work_of(_linear("fp32"))
    assert work.multiply_adds == 8 * 16 * 64
    assert work.weight_bytes == 4 * 16 * 64 + 4 * 64
    assert work.activation_bytes == 4 * 8 * (16 + 64)


def test_codes_multiply_in_int8_and_are_a_byte_each() -> None:
    work = work_of(_linear("w8a8"))
    assert work.arithmetic is Arithmetic.INT8
    assert work.activation_bytes == 8 * (16 + 4 * 64)


@pytest.mark.parametrize("kind", list(OperatorKind))
def test_every_kind_of_operator_takes_energy(kind: OperatorKind) -> None:
    format_name = {OperatorKind.LINEAR: "fp32", OperatorKind.CONVOLUTION: "fp32", OperatorKind.DEPTHWISE: "fp32"}
    operator = Operator.of(kind, format=format_name.get(kind), **dict.fromkeys(AXIS_NAMES[kind], 8))
    assert EnergyPredictor(LatencyPredictor(_table(), WORKLOAD)).operator_mj(operator) > 0


def test_a_policy_takes_the_sum_of_its_operators() -> None:
    energy = EnergyPredictor(LatencyPredictor(_table(), WORKLOAD))
    for choice in SPACE.choices("f"):
        policy = Policy({"f": choice})
        expected = 0.0
        for operator, count in operators(STRUCTURE, policy, WORKLOAD).items():
            work = work_of(operator)
            per_add = {Arithmetic.FLOAT32: 3.7 + 0.9, Arithmetic.INT8: 0.2 + 0.1}[work.arithmetic]
            picojoule = work.multiply_adds * per_add + work.weight_bytes * 244 + work.activation_bytes * 12.5
            expected += count * picojoule * 1e-12 * 1e3
        assert energy.policy_mj(STRUCTURE, policy) == pytest.approx(expected)


def test_int8_takes_less_than_float() -> None:
    energy = EnergyPredictor(LatencyPredictor(_table(), WORKLOAD))
    assert energy.unit_mj(UNIT, Choice(64, "w8a8")) < energy.unit_mj(UNIT, Choice(64, "fp32")) / 2
    assert energy.unit_mj(UNIT, Choice(0, "fp32")) == 0


def test_the_least_is_that_of_the_smallest_policy() -> None:
    energy = EnergyPredictor(LatencyPredictor(_table(), WORKLOAD))
    every = [energy.policy_mj(STRUCTURE, Policy({"f": choice})) for choice in SPACE.choices("f")]
    assert least_energy_mj(SPACE, energy) == pytest.approx(min(every))


def test_measured_power_times_time_is_energy() -> None:
    power = MeasuredPower(source="meter", watts={Arithmetic.FLOAT32: 10.0, Arithmetic.INT8: 4.0})
    energy = EnergyPredictor(LatencyPredictor(_table(power), WORKLOAD))
    assert energy.basis is EnergyBasis.MEASURED
    assert energy.operator_mj(_linear("fp32")) == pytest.approx(0.5 * 10)
    assert energy.operator_mj(_linear("w8a8")) == pytest.approx(0.5 * 4)


def test_the_overhead_of_a_call_takes_the_power_of_floats() -> None:
    power = MeasuredPower(source="meter", watts={Arithmetic.FLOAT32: 10.0, Arithmetic.INT8: 4.0})
    fit = Correction(scale=2.0, overhead_ms=3.0, models=2, median_error_pct=1.0, max_error_pct=2.0)
    latency = LatencyPredictor(_table(power).with_correction(WORKLOAD, fit), WORKLOAD)
    policy = Policy({"f": Choice(64, "fp32")})
    assert EnergyPredictor(latency).policy_mj(STRUCTURE, policy) == pytest.approx(
        10 * latency.policy_ms(STRUCTURE, policy)
    )


def test_costs_say_on_what_energies_rest() -> None:
    costs = CostModel(STRUCTURE, LatencyPredictor(_table(), WORKLOAD)).costs(Policy({"f": Choice(64, "fp32")}))
    assert costs.energy_basis is EnergyBasis.ESTIMATED
    assert costs.energy_mj is not None
    assert costs.peak_memory_bytes is not None


def test_a_table_keeps_its_energy_and_one_without_keeps_its_text() -> None:
    power = MeasuredPower(source="meter", watts={Arithmetic.FLOAT32: 10.0})
    for stated in (power, HOROWITZ, None):
        table = _table(stated)
        assert parse_table(table.to_json()) == table
        assert ("energy" in table.to_json()) == (stated is not None)


def test_coefficients_name_every_arithmetic() -> None:
    with pytest.raises(ValidationError, match=r"names every arithmetic; it lacks float16, float8, int8"):
        EnergyCoefficients(
            source="x", multiply_add_pj={Arithmetic.FLOAT32: 1.0}, weight_byte_pj=1.0, activation_byte_pj=1.0
        )
    with pytest.raises(ValidationError, match=r"watts names float32, which stands in for others; got int8"):
        MeasuredPower(source="x", watts={Arithmetic.INT8: 1.0})
