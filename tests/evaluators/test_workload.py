from collections import Counter
from dataclasses import replace

import pytest

from evaluators.latency.workload import (
    Operator,
    OperatorKind,
    Workload,
    activation_of,
    fixed_operators,
    operators,
    unit_operators,
)
from search_spaces.policy import Choice, Policy
from search_spaces.units import Branch, FixedPart, ModelStructure, PartKind, Producer, Rotation, Unit, UnitKind

WORKLOAD = Workload(batch=2, sequence_length=5)


def attention(*, queries: int = 1) -> Unit:
    return Unit(
        name="a",
        kind=UnitKind.ATTENTION,
        groups=4,
        producers=(
            Producer(layer="q", rows_per_group=8 * queries),
            Producer(layer="k", rows_per_group=8),
            Producer(layer="v", rows_per_group=8),
        ),
        consumer="o",
        columns_per_group=8 * queries,
        in_features=32,
        out_features=32,
        branch=Branch(module="a"),
    )


def feed_forward(*producers: str) -> Unit:
    return Unit(
        name="f",
        kind=UnitKind.FEED_FORWARD,
        groups=64,
        producers=tuple(Producer(layer=name, rows_per_group=1) for name in producers),
        consumer="down",
        columns_per_group=1,
        in_features=32,
        out_features=32,
        activation="gelu",
    )


def linear(format_name: str, in_features: int, out_features: int) -> Operator:
    return Operator.of(
        OperatorKind.LINEAR, format=format_name, tokens=10, in_features=in_features, out_features=out_features
    )


def core(heads: int, queries: int = 1) -> Operator:
    return Operator.of(OperatorKind.ATTENTION_CORE, batch=2, sequence=5, heads=heads, queries=queries, head_dim=8)


def quantize(features: int) -> Operator:
    return Operator.of(OperatorKind.QUANTIZE, tokens=10, features=features)


def test_attention_in_the_base_format() -> None:
    found = unit_operators(attention(), Choice(3, "fp32"), WORKLOAD)
    assert found == Counter({linear("fp32", 32, 24): 3, core(3): 1, linear("fp32", 24, 32): 1})


def test_dynamic_activations_are_quantized_once_for_q_k_v_and_once_for_the_output() -> None:
    found = unit_operators(attention(), Choice(3, "w8a8"), WORKLOAD)
    assert found[quantize(32)] == 1
    assert found[quantize(24)] == 1
    assert found.total() == 3 + 1 + 1 + 2


def test_equal_widths_share_one_operator() -> None:
    assert unit_operators(attention(), Choice(4, "w8a8"), WORKLOAD)[quantize(32)] == 2
    assert unit_operators(attention(), Choice(4, "fp32"), WORKLOAD)[linear("fp32", 32, 32)] == 4


@pytest.mark.parametrize("name", ["w4", "w4g128"])
def test_weight_only_formats_quantize_inside_the_kernel(name: str) -> None:
    found = unit_operators(feed_forward("up"), Choice(16, name), WORKLOAD)
    gelu = Operator.of(OperatorKind.ACTIVATION, function="gelu", tokens=10, features=16)
    assert found == Counter({linear(name, 32, 16): 1, gelu: 1, linear(name, 16, 32): 1})


def test_query_heads_that_share_a_key_value_head() -> None:
    found = unit_operators(attention(queries=2), Choice(2, "fp32"), WORKLOAD)
    assert found == Counter({linear("fp32", 32, 32): 2, linear("fp32", 32, 16): 2, core(2, queries=2): 1})


def test_one_producer_of_gate_and_up_joins_them() -> None:
    unit = replace(feed_forward("both"), producers=(Producer(layer="both", rows_per_group=1, blocks=2),))
    found = unit_operators(unit, Choice(16, "fp32"), WORKLOAD)
    assert found[Operator.of(OperatorKind.ACTIVATION, function="joined_gated_gelu", tokens=10, features=16)] == 1
    assert found[linear("fp32", 32, 32)] == 1


def test_two_producers_gate_the_activation() -> None:
    found = unit_operators(feed_forward("gate", "up"), Choice(16, "fp32"), WORKLOAD)
    assert found[Operator.of(OperatorKind.ACTIVATION, function="gated_gelu", tokens=10, features=16)] == 1
    assert found[linear("fp32", 32, 16)] == 2


def test_a_unit_left_out_runs_nothing() -> None:
    assert unit_operators(attention(), Choice(0, "fp32"), WORKLOAD) == Counter()


@pytest.mark.parametrize(("keep", "norms"), [(4, 1), (2, 1), (0, 0)])
def test_the_normalisation_of_a_branch_runs_where_anything_of_it_stays(keep: int, norms: int) -> None:
    unit = replace(attention(), branch=Branch(module="block", norm="norm"))
    found = unit_operators(unit, Choice(keep, "fp32"), WORKLOAD)
    assert found[Operator.of(OperatorKind.LAYER_NORM, tokens=10, features=32)] == norms


def test_a_norm_of_root_mean_squares_is_another_operator() -> None:
    unit = replace(attention(), branch=Branch(module="block", norm="norm", norm_kind=PartKind.RMS_NORM))
    found = unit_operators(unit, Choice(2, "fp32"), WORKLOAD)
    assert found[Operator.of(OperatorKind.RMS_NORM, tokens=10, features=32)] == 1
    assert not any(operator.kind is OperatorKind.LAYER_NORM for operator in found)


@pytest.mark.parametrize(("queries", "heads", "count"), [(1, (3,), 2), (2, (3, 6), 1)])
def test_positions_are_rotated_into_queries_and_keys_that_stay(
    queries: int, heads: tuple[int, ...], count: int
) -> None:
    rotation = Rotation(columns=4, neighbours=True)
    unit = replace(attention(queries=queries), rotation=rotation, normalizes_heads=True)
    found = unit_operators(unit, Choice(3, "w8a8"), WORKLOAD)
    for number in heads:
        axes = {"batch": 2, "sequence": 5, "heads": number, "head_dim": 8}
        assert found[Operator.of(OperatorKind.ROTARY, function="neighbours", columns=4, **axes)] == count
        assert found[Operator.of(OperatorKind.HEAD_NORM, **axes)] == count


def test_positions_are_computed_while_any_attention_stays() -> None:
    positions = FixedPart(kind=PartKind.POSITIONS, width=(4,), only_for=UnitKind.ATTENTION)
    units = (attention(), feed_forward("up"))
    structure = ModelStructure(architecture="x", units=units, fixed=(positions,), fixed_bytes=0)
    expected = Operator.of(OperatorKind.POSITIONS, batch=2, sequence=5, columns=4)
    for keep, count in ((1, 1), (0, 0)):
        policy = Policy({"a": Choice(keep, "fp32"), "f": Choice(8, "fp32")})
        assert operators(structure, policy, WORKLOAD)[expected] == count
    assert fixed_operators(structure, WORKLOAD)[expected] == 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("gelu", ("gelu", False, False)),
        ("gated_silu", ("silu", True, False)),
        ("joined_gated_silu", ("silu", True, True)),
    ],
)
def test_the_function_of_an_activation_tells_its_inputs(function: str, expected: tuple[str, bool, bool]) -> None:
    assert activation_of(Operator.of(OperatorKind.ACTIVATION, function=function, tokens=1, features=1)) == expected


def test_fixed_parts_run_for_each_token_or_each_example() -> None:
    structure = ModelStructure(
        architecture="x",
        units=(),
        fixed=(
            FixedPart(kind=PartKind.LINEAR, width=(32, 3), per_token=False),
            FixedPart(kind=PartKind.LAYER_NORM, width=(32,), count=5),
            FixedPart(kind=PartKind.EMBEDDING, width=(100, 32)),
            FixedPart(kind=PartKind.CONVOLUTION, width=(1, 32, 2, 8), per_token=False),
        ),
        fixed_bytes=0,
    )
    assert fixed_operators(structure, WORKLOAD) == Counter(
        {
            Operator.of(OperatorKind.LINEAR, format="fp32", tokens=2, in_features=32, out_features=3): 1,
            Operator.of(OperatorKind.LAYER_NORM, tokens=10, features=32): 5,
            Operator.of(OperatorKind.EMBEDDING, tokens=10, rows=100, features=32): 1,
            Operator.of(
                OperatorKind.CONVOLUTION,
                batch=2,
                in_channels=1,
                out_channels=32,
                kernel=2,
                stride=2,
                height=4,
                width=4,
                format="fp32",
            ): 1,
        }
    )


def test_a_policy_is_the_sum_of_its_units_and_the_fixed_parts() -> None:
    norm = FixedPart(kind=PartKind.LAYER_NORM, width=(32,))
    structure = ModelStructure(architecture="x", units=(attention(), feed_forward("up")), fixed=(norm,), fixed_bytes=0)
    policy = Policy({"a": Choice(2, "w8a8"), "f": Choice(8, "fp32")})
    parts = [unit_operators(unit, policy[unit.name], WORKLOAD) for unit in structure.units]
    assert operators(structure, policy, WORKLOAD) == parts[0] + parts[1] + fixed_operators(structure, WORKLOAD)


def test_an_operator_is_named_by_kind_format_and_axes() -> None:
    assert str(linear("w8a8", 32, 24)) == "linear w8a8 in_features=32 out_features=24 tokens=10"


def test_a_workload_has_at_least_one_token() -> None:
    with pytest.raises(ValueError, match="at least one example of one token"):
        Workload(batch=0, sequence_length=5)
