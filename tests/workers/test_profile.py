import random
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import Fingerprint, load_table
from evaluators.latency.workload import Operator, OperatorKind, Workload, operators
from search_spaces.policy import Choice, Policy
from search_spaces.space import SpaceConfig, build_space
from search_spaces.units import Branch, FixedPart, ModelStructure, PartKind, Producer, Unit, UnitKind
from workers import profile as profile_module
from workers.profile import (
    ProfileBudget,
    WholeModel,
    grid_operators,
    measure,
    measure_correction,
    profile,
    required_operators,
    working_set_bytes,
)
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu, copies_of, fingerprint, open_session, time_session
from workers.targets.onnxruntime_graphs import build_graph

FORMATS = ("fp32", "w8a8", "w4", "w4g128")
WORKLOAD = Workload(batch=1, sequence_length=17)
QUICK = ProfileBudget(rounds=2, runs=3)


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
        groups=128,
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


class SteadyDevice:
    """A device whose times follow from the operator alone."""

    def __init__(self, noise: float = 0.0) -> None:
        self.calls: list[tuple[Operator, int]] = []
        self.noise = noise

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(device="steady", runtime="none", runtime_version="1", threads=1, os="none")

    def clocks(self) -> str | None:
        return "1 GHz"

    def sample(self, operator: Operator, *, runs: int, seed: int, working_set_bytes: int) -> list[float]:
        self.calls.append((operator, working_set_bytes))
        base = float(sum(size for _, size in operator.axes))
        return [base * (1 + self.noise * (index % 2)) for index in range(runs)]


def run(device: SteadyDevice, wanted: list[Operator], out: Path | None = None, **budget: float) -> object:
    return measure(
        wanted,
        structure(),
        device,
        target="t",
        out=out,
        budget=ProfileBudget(**{"rounds": 3, "runs": 4, **budget}),
        generator=random.Random(0),
        progress=lambda done, total: None,
    )


def test_required_operators_are_those_of_all_policies() -> None:
    config = SpaceConfig(keep=(1.0, 0.5, 0.0), formats=("w8a8", "w4"))
    space = build_space(structure(), config, target_formats=FORMATS, channel_multiple=8)
    generator = random.Random(0)
    policies = [space.random_policy(generator) for _ in range(200)]
    expected = {o for p in (*policies, space.dense_policy()) for o in operators(structure(), p, WORKLOAD)}
    required = required_operators(space, WORKLOAD)
    assert set(required) == expected
    assert len(required) == len(expected)


def test_a_grid_brackets_every_width() -> None:
    device = SteadyDevice()
    grid = list(grid_operators(structure(), WORKLOAD, formats=FORMATS, channel_multiple=8, steps=4))
    predictor = LatencyPredictor(run(device, grid), WORKLOAD)
    for keep in range(1, 5):
        for width in range(8, 129, 8):
            for name in FORMATS:
                policy = Policy({"attention": Choice(keep, name), "feed_forward": Choice(width, name)})
                assert predictor.policy_ms(structure(), policy) > 0


def test_every_operator_is_sampled_in_each_round_with_the_working_set_of_its_format() -> None:
    device = SteadyDevice()
    wanted = list(operators(structure(), Policy({u.name: Choice(4, "w4") for u in structure().units}), WORKLOAD))
    table = run(device, wanted)
    assert Counter(o for o, _ in device.calls) == dict.fromkeys(wanted, 3)
    assert all(size == working_set_bytes(structure(), o.format) for o, size in device.calls)
    orders = [
        [o for o, _ in device.calls[start : start + len(wanted)]] for start in range(0, 3 * len(wanted), len(wanted))
    ]
    assert orders[0] != orders[1]
    assert {e.operator for e in table.entries} == set(wanted)
    assert all((e.median_ms, e.spread_ms, e.repeats) == (sum(e.axes.values()), 0, 12) for e in table.entries)
    assert table.provenance.clocks == "1 GHz"
    assert table.provenance.notes == ()


def test_the_working_set_is_the_weights_of_all_units() -> None:
    weights = 4 * 64 * 64 + 2 * 64 * 128
    assert working_set_bytes(structure(), None) == 4 * weights
    assert working_set_bytes(structure(), "w8a8") == weights + 4 * (4 * 64 + 128 + 64)


def test_what_the_file_holds_is_not_measured_again(tmp_path: Path) -> None:
    wanted = list(required_operators(_space(), WORKLOAD))
    first, second, third = SteadyDevice(), SteadyDevice(), SteadyDevice()
    run(first, wanted[:5], tmp_path / "t.json")
    run(second, wanted, tmp_path / "t.json")
    assert {o for o, _ in second.calls} == set(wanted[5:])
    whole = run(third, wanted, tmp_path / "t.json")
    assert third.calls == []
    assert load_table(tmp_path / "t.json") == whole
    assert {e.operator for e in whole.entries} == set(wanted)


def test_an_interrupted_profile_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "CHUNK", 4)
    wanted = list(required_operators(_space(), WORKLOAD))

    class Interrupted(SteadyDevice):
        def sample(self, operator: Operator, **options: int) -> list[float]:
            if len(self.calls) == 30:
                raise KeyboardInterrupt
            return super().sample(operator, **options)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), wanted, tmp_path / "t.json")
    assert len(load_table(tmp_path / "t.json").entries) == 8
    device = SteadyDevice()
    assert {e.operator for e in run(device, wanted, tmp_path / "t.json").entries} == set(wanted)
    assert len({o for o, _ in device.calls}) == len(wanted) - 8


def test_a_noisy_machine_is_noted() -> None:
    wanted = list(required_operators(_space(), WORKLOAD))
    (note,) = run(SteadyDevice(noise=1.0), wanted).provenance.notes
    assert "the machine is noisy" in note


def test_a_time_limit_leaves_two_rounds() -> None:
    device = SteadyDevice()
    wanted = list(required_operators(_space(), WORKLOAD))[:3]
    run(device, wanted, seconds=0.0, rounds=9)
    assert len(device.calls) == 2 * len(wanted)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one operator; got none"):
        run(SteadyDevice(), [])


def test_this_machine_is_profiled(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    required = required_operators(_space(), WORKLOAD)
    table = profile(
        required,
        structure(),
        target="cpu-onnxruntime",
        threads=1,
        out=tmp_path / "t.json",
        budget=QUICK,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert load_table(tmp_path / "t.json") == table
    assert table.fingerprint == fingerprint(1)
    assert seen[-1] == (2 * len(required), 2 * len(required))
    predictor = LatencyPredictor(table, WORKLOAD)
    dense = _space().dense_policy()
    assert 0.01 < predictor.policy_ms(structure(), dense) < 100
    assert predictor.policy_ms(structure(), _space().smallest_policy()) < predictor.policy_ms(structure(), dense)


def test_wider_layers_take_longer() -> None:
    device = OnnxRuntimeCpu(1)
    times = [
        np.median(device.sample(_linear("fp32", 256, width), runs=15, seed=0, working_set_bytes=0))
        for width in (64, 1024)
    ]
    assert times[1] > 4 * times[0]


def test_a_correction_is_fitted_on_whole_models() -> None:
    table = run(SteadyDevice(), list(required_operators(_space(), WORKLOAD)))
    models = []
    for copies in (4, 8, 12, 16, 24):
        model, feeds = build_graph(_linear("fp32", 256, 512), copies=copies, seed=0)
        models.append(WholeModel(predicted_ms=float(copies), model=model, feeds=feeds))
    fit = measure_correction(table, WORKLOAD, models, rounds=3, repeats=20).correction(WORKLOAD)
    assert fit is not None
    one_ms = time_session(models[-1].model, models[-1].feeds, threads=1, repeats=60).median_ms / 24
    assert fit.models == 5
    assert fit.scale == pytest.approx(one_ms, rel=0.6)
    assert table.corrections == ()


def test_timing_statistics_are_in_order() -> None:
    model, feeds = build_graph(_linear("w8a8", 64, 64), copies=3, seed=0)
    stats = time_session(model, feeds, threads=1, repeats=30)
    assert 0 < stats.median_ms <= stats.p99_ms
    assert stats.spread_ms >= 0
    assert stats.repeats == 30


def _space():
    config = SpaceConfig(keep=(1.0, 0.5, 0.0))
    return build_space(structure(), config, target_formats=FORMATS, channel_multiple=8)


def _linear(name: str, in_features: int, out_features: int) -> Operator:
    return Operator.of(OperatorKind.LINEAR, format=name, tokens=17, in_features=in_features, out_features=out_features)


def _activation(name: str) -> Operator:
    return Operator.of(OperatorKind.ACTIVATION, function=name, tokens=4, features=24)


KERNELS = [
    (_linear("fp32", 64, 48), {"MatMul": 2, "Add": 2}),
    (_linear("w8a8", 64, 48), {"MatMulIntegerToFloat": 2}),
    (_linear("w4", 72, 48), {"MatMulNBits": 2}),
    (_linear("w4g128", 8, 48), {"MatMulNBits": 2}),
    (Operator.of(OperatorKind.QUANTIZE, tokens=4, features=24), {"DynamicQuantizeLinear": 2}),
    (Operator.of(OperatorKind.LAYER_NORM, tokens=4, features=24), {"SkipLayerNormalization": 2}),
    (_activation("gelu"), {"Gelu": 2}),
    (_activation("gelu_new"), {"Gelu": 2}),
    (_activation("relu"), {"Relu": 2}),
    (_activation("silu"), {"QuickGelu": 2}),
    (_activation("quick_gelu"), {"QuickGelu": 2}),
    (_activation("gated_silu"), {"QuickGelu": 2, "Mul": 2}),
    (Operator.of(OperatorKind.EMBEDDING, tokens=4, rows=9, features=24), {"Gather": 2}),
    (
        Operator.of(
            OperatorKind.CONVOLUTION,
            batch=2,
            in_channels=3,
            out_channels=8,
            kernel=4,
            stride=4,
            height=4,
            width=4,
            format="fp32",
        ),
        {"Conv": 2},
    ),
    (
        Operator.of(OperatorKind.ATTENTION_CORE, batch=2, sequence=5, heads=3, queries=1, head_dim=8),
        {"FusedMatMul": 2, "Softmax": 2, "MatMul": 2, "Add": 2, "Reshape": 8, "Transpose": 8},
    ),
]


@pytest.mark.parametrize(("operator", "kernels"), KERNELS, ids=lambda value: str(value)[:40])
def test_an_operator_runs_the_kernels_of_the_exported_model(operator, kernels, tmp_path) -> None:
    import onnxruntime

    model, feeds = build_graph(operator, copies=2, seed=0)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["CommonSubexpressionElimination"]
    )
    session.run(None, feeds)
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert nodes == {**kernels, "Identity": 1}


def test_nodes_that_nobody_reads_are_run() -> None:
    one, many = (build_graph(_linear("fp32", 256, 512), copies=copies, seed=0) for copies in (1, 16))
    times = [time_session(model, feeds, threads=1, repeats=30).median_ms for model, feeds in (one, many)]
    assert times[1] > 5 * times[0]


@pytest.mark.parametrize("queries", [1, 2])
def test_the_attention_core_computes_attention(queries: int) -> None:
    """The last node's result, against the definition."""
    batch, sequence, heads, head_dim = 2, 5, 3, 4
    operator = Operator.of(
        OperatorKind.ATTENTION_CORE, batch=batch, sequence=sequence, heads=heads, queries=queries, head_dim=head_dim
    )
    model, feeds = build_graph(operator, copies=1, seed=0)
    proto = onnx.load_from_string(model)
    name = proto.graph.node[-2].output[0]
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    _, got = open_session(proto.SerializeToString(), threads=1).run(None, feeds)
    query, key, value = (feeds[n].reshape(batch, sequence, -1, head_dim) for n in ("query", "key", "value"))
    expected = np.empty_like(query)
    for head in range(heads * queries):
        for row in range(batch):
            scores = query[row, :, head] @ key[row, :, head // queries].T / head_dim**0.5
            weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            expected[row, :, head] = weights @ value[row, :, head // queries]
    np.testing.assert_allclose(got, expected.reshape(batch, sequence, -1), atol=1e-5)


def test_a_format_without_a_kernel_is_refused() -> None:
    from search_spaces.formats import FORMATS as KNOWN
    from search_spaces.registry import RegistryError

    assert "bf16" not in KNOWN
    with pytest.raises(RegistryError, match="unknown format 'bf16'"):
        build_graph(_linear("bf16", 8, 8), copies=1, seed=0)


def test_an_unknown_activation_lists_the_known() -> None:
    with pytest.raises(ValueError, match="unknown activation function on ONNX Runtime 'mish'; supported: gelu"):
        build_graph(_activation("mish"), copies=1, seed=0)


def test_copies_are_fewer_where_weights_or_work_are_large() -> None:
    assert copies_of(_linear("fp32", 64, 64)) == 16
    assert 2 <= copies_of(_linear("fp32", 1024, 1024)) < 16
    assert copies_of(_linear("fp32", 8192, 8192)) == 2
    assert copies_of(Operator.of(OperatorKind.EMBEDDING, tokens=4, rows=100_000, features=512)) == 1


def test_the_fingerprint_tells_the_cpu_and_the_runtime() -> None:
    here = fingerprint(2)
    assert here.device
    assert here.runtime == "onnxruntime"
    assert here.threads == 2
    assert list(here.flags) == sorted(set(here.flags))
