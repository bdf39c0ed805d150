"""Costs of layers between channels, against a table made by hand."""

import random

import pytest
from tiny_tables import table_of

from evaluators.channel_size import layer_bytes
from evaluators.costs import CostModel, least_latency_ms, least_size_bytes
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.workload import Operator, OperatorKind, Workload, operators, unit_operators
from evaluators.size import size_bytes, unit_bytes
from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit, CutLayer, ResidualSum
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import Branch, ModelStructure
from workers.profile import grid_operators, required_operators

WORKLOAD = Workload(batch=2, sequence_length=1)


def _layer(layer, rows, columns, out_channels, in_channels, kernel=3, stride=1, **fields):
    kind = fields.pop("kind", ChannelLayerKind.CONVOLUTION)
    size = 1 if kind is ChannelLayerKind.LINEAR else 4
    return ChannelLayer(
        layer=layer,
        kind=kind,
        rows=rows,
        columns=columns,
        out_channels=out_channels,
        in_channels=in_channels,
        kernel=kernel,
        stride=stride,
        height=size,
        width=size,
        **fields,
    )


OUTER = ChannelUnit(
    name="outer",
    groups=16,
    channel_layers=(
        _layer("stem", "outer", None, 16, 3, stride=2),
        _layer("second", "outer", "inner", 16, 32, kernel=1),
        _layer("head", None, "outer", 10, 16, kernel=1, kind=ChannelLayerKind.LINEAR),
    ),
    sums=(ResidualSum(height=4, width=4, activation_module="act"),),
)
INNER = ChannelUnit(
    name="inner",
    groups=32,
    channel_layers=(
        _layer("first", "inner", "outer", 32, 16, kernel=1),
        _layer("depthwise", "inner", "inner", 32, 1, kind=ChannelLayerKind.DEPTHWISE),
    ),
    branch=Branch(module="branch"),
)
STRUCTURE = ModelStructure(architecture="test", units=(OUTER, INNER), fixed=(), fixed_bytes=0, tokens=1, max_tokens=1)
SPACE = build_space(STRUCTURE, SpaceConfig(), target_formats=("fp32", "w8a8", "w8a8s"), channel_multiple=8)


def _policy(outer, inner):
    return Policy({"outer": Choice(*outer), "inner": Choice(*inner)})


def _conv(out_channels, in_channels, kernel, stride, name):
    return Operator.of(
        OperatorKind.CONVOLUTION,
        format=name,
        batch=2,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=kernel,
        stride=stride,
        height=4,
        width=4,
    )


def _map(kind, channels, size=4, name=None):
    return Operator.of(kind, format=name, batch=2, channels=channels, height=size, width=size)


def _table(entries):
    return table_of({operator: 1.0 + number / 7 for number, operator in enumerate(entries)})


def test_bytes_of_a_mixed_policy():
    stem = 8 * (27 + 4) + 8 * 4 + 10
    second = 8 * (24 + 4) + 8 * 4 + 10
    head = 10 * 8 * 4 + 10 * 4
    first = 24 * 8 * 4 + 24 * 4
    depthwise = 24 * 9 * 4 + 24 * 4
    policy = _policy((8, "w8a8s"), (24, "fp32"))
    assert size_bytes(STRUCTURE, policy) == stem + second + head + 5 + first + depthwise


def test_bytes_without_a_branch_keep_its_bias():
    policy = _policy((16, "fp32"), (0, "fp32"))
    assert size_bytes(STRUCTURE, policy) == 4 * (16 * 27 + 16) + 4 * 16 + 4 * (10 * 16 + 10)
    cut = next(cut for cut in OUTER.cut(policy, "fp32") if cut.layer.layer == "second")
    assert layer_bytes(cut) == 4 * 16


def test_shares_of_the_dense_model_add_up_to_it():
    dense = SPACE.dense_policy()
    assert sum(unit_bytes(unit, dense[unit.name]) for unit in STRUCTURE.units) == size_bytes(STRUCTURE, dense)


def test_operators_of_a_float_policy():
    found = operators(STRUCTURE, _policy((16, "fp32"), (8, "fp32")), WORKLOAD)
    depthwise = Operator.of(
        OperatorKind.DEPTHWISE, format="fp32", batch=2, channels=8, kernel=3, stride=1, height=4, width=4
    )
    head = Operator.of(OperatorKind.LINEAR, format="fp32", tokens=2, in_features=16, out_features=10)
    assert found == {
        _conv(16, 3, 3, 2, "fp32"): 1,
        _conv(16, 8, 1, 1, "fp32"): 1,
        _conv(8, 16, 1, 1, "fp32"): 1,
        depthwise: 1,
        head: 1,
    }


def test_operators_where_formats_meet():
    found = operators(STRUCTURE, _policy((16, "w8a8s"), (8, "fp32")), WORKLOAD)
    assert found[_conv(16, 3, 3, 2, "w8a8s")] == 1
    assert found[_conv(8, 16, 1, 1, "fp32")] == 1
    assert found[_map(OperatorKind.STATIC_QUANTIZE, 3, size=8)] == 1
    assert found[_map(OperatorKind.STATIC_QUANTIZE, 8)] == 1
    assert found[_map(OperatorKind.DEQUANTIZE, 16)] == 1
    assert found[_map(OperatorKind.RESIDUAL_ADD, 16, name="w8a8s")] == 1


def test_nothing_runs_in_a_branch_that_is_left_out():
    found = operators(STRUCTURE, _policy((16, "fp32"), (0, "fp32")), WORKLOAD)
    assert {operator.kind for operator in found} == {OperatorKind.CONVOLUTION, OperatorKind.LINEAR}
    assert sum(found.values()) == 2
    assert not unit_operators(INNER, Choice(0, "fp32"), WORKLOAD)


def test_required_operators_answer_for_every_policy_and_times_add_up():
    table = _table(required_operators(SPACE, WORKLOAD))
    times = {entry.operator: entry.median_ms for entry in table.entries}
    predictor = LatencyPredictor(table, WORKLOAD)
    generator = random.Random(0)
    least_ms, least_bytes = least_latency_ms(SPACE, predictor), least_size_bytes(SPACE)
    for policy in [SPACE.random_policy(generator) for _ in range(60)]:
        counts = operators(STRUCTURE, policy, WORKLOAD)
        costs = CostModel(STRUCTURE, predictor).costs(policy)
        assert costs.latency_ms == pytest.approx(sum(count * times[operator] for operator, count in counts.items()))
        assert least_ms <= costs.latency_ms
        assert least_bytes <= costs.size_bytes
        assert all(predictor.unit_ms(unit, policy[unit.name]) >= 0 for unit in STRUCTURE.units)


def test_a_grid_answers_for_every_width():
    formats = ("fp32", "w8a8", "w8a8s")
    table = _table(grid_operators(STRUCTURE, WORKLOAD, formats=formats, channel_multiple=8))
    predictor = LatencyPredictor(table, WORKLOAD)
    assert all(entry.format != "w8a8" for entry in table.entries)
    for outer in (8, 16):
        for inner in (8, 16, 24, 32):
            for names in (("fp32", "w8a8s"), ("w8a8s", "w8a8s")):
                policy = _policy((outer, names[0]), (inner, names[1]))
                assert predictor.policy_ms(STRUCTURE, policy) > 0


def test_a_width_between_two_is_interpolated():
    low, high = _conv(8, 16, 1, 1, "fp32"), _conv(32, 16, 1, 1, "fp32")
    predictor = LatencyPredictor(_table([low, high]), WORKLOAD)
    assert predictor.operator_ms(low) < predictor.operator_ms(_conv(16, 16, 1, 1, "fp32")) < predictor.operator_ms(high)


def test_the_least_bytes_are_those_of_a_policy_where_no_choice_conflicts():
    space = build_space(STRUCTURE, SpaceConfig(keep=(0.5,)), target_formats=("w8a8s",), channel_multiple=8)
    policy = _policy((8, "w8a8s"), (16, "w8a8s"))
    assert least_size_bytes(space) == size_bytes(STRUCTURE, policy) - 5


def test_a_layer_counts_its_ranges_only_in_a_static_format():
    layer = INNER.channel_layers[0]
    sizes = [
        layer_bytes(CutLayer(layer=layer, out_channels=8, in_channels=4, format=name, input_format="fp32"))
        for name in ("fp32", "w8a8s")
    ]
    assert sizes == [8 * 4 * 4 + 8 * 4, 8 * (4 + 4) + 8 * 4 + 10]
