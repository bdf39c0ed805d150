import numpy as np
import pytest

from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance
from evaluators.latency.workload import OperatorKind, Workload, operators
from search_spaces.policy import Choice
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from search_spaces.units import ModelStructure
from workers.profiling.policies import mixed_policies, spread_policies
from workers.profiling.required import required_operators

WORKLOAD = Workload(batch=1, sequence_length=17)


def space_of(structure: ModelStructure, **config: object) -> SearchSpace:
    return build_space(structure, SpaceConfig(**config), target_formats=("fp32", "w8a8", "w4"), channel_multiple=8)


def predictor_of(space: SearchSpace) -> LatencyPredictor:
    rows = [
        Entry(
            kind=o.kind,
            format=o.format,
            function=o.function,
            axes=dict(o.axes),
            median_ms=1e-3 * sum(size for _, size in o.axes) / {"w8a8": 3, "w4": 2}.get(o.format, 1),
            spread_ms=0.0,
            repeats=1,
            working_set_bytes=0,
        )
        for o in required_operators(space, WORKLOAD)
    ]
    mark = Fingerprint(device="d", runtime="r", runtime_version="1", threads=1, os="o")
    table = LatencyTable(target="t", fingerprint=mark, provenance=Provenance(measured_at=None), entries=tuple(rows))
    return LatencyPredictor(table, WORKLOAD)


@pytest.fixture
def wide(structure: ModelStructure) -> SearchSpace:
    return space_of(structure, keep=tuple(n / 16 for n in range(17)))


def test_the_ends_come_first_and_the_seed_decides(wide: SearchSpace) -> None:
    found = spread_policies(wide, predictor_of(wide), 8, seed=0)
    assert list(found)[:2] == ["dense", "smallest"]
    assert found["dense"] == wide.dense_policy()
    assert found["smallest"] == wide.smallest_policy()
    assert len(set(found.values())) == 8
    assert found == spread_policies(wide, predictor_of(wide), 8, seed=0)


def test_what_every_format_and_attention_cost_can_be_told_from_the_policies(wide: SearchSpace) -> None:
    """Times by any factors are found again from as many policies as there are factors, and three more."""
    predictor = predictor_of(wide)
    found = spread_policies(wide, predictor, 8, seed=0)
    factors = {"fp32": 1.0, "w8a8": 1.3, "w4": 0.8, "attention": 1.5, "other": 2.0}
    sums = []
    for policy in found.values():
        parts = dict.fromkeys(factors, 0.0)
        for operator, count in operators(wide.structure, policy, WORKLOAD).items():
            other = "attention" if operator.kind is OperatorKind.ATTENTION_CORE else "other"
            part = operator.format if operator.kind is OperatorKind.LINEAR else other
            parts[part] += count * predictor.operator_ms(operator)
        sums.append([parts[name] for name in factors])
    share = np.array(sums) / np.sum(sums, axis=1, keepdims=True)
    noisy = share @ np.array(list(factors.values())) * np.random.default_rng(0).normal(1, 0.005, len(share))
    np.testing.assert_allclose(np.linalg.lstsq(share, noisy)[0], list(factors.values()), rtol=0.1)


def test_a_space_with_fewer_policies_gives_all(structure: ModelStructure) -> None:
    space = space_of(structure, keep=(1.0, 0.5), formats=("fp32",))
    assert len(spread_policies(space, predictor_of(space), 12, seed=0)) == 4


def test_mixed_policies_cover_the_range(wide: SearchSpace) -> None:
    predictor = predictor_of(wide)
    low, high = (predictor.policy_ms(wide.structure, p) for p in (wide.smallest_policy(), wide.dense_policy()))
    times = [predictor.policy_ms(wide.structure, p) for p in mixed_policies(wide, predictor, 5, seed=0)]
    expected = [low + (n + 0.5) / 5 * (high - low) for n in range(5)]
    assert times == pytest.approx(expected, rel=0.1)


def test_uniform_latencies_follow_the_seed(wide: SearchSpace) -> None:
    predictor = predictor_of(wide)
    one, same, other = (mixed_policies(wide, predictor, 6, seed=seed, uniform=True) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_space_of_one_policy_gives_one(structure: ModelStructure) -> None:
    space = space_of(structure, keep=(1.0,), formats=("fp32",))
    assert list(spread_policies(space, predictor_of(space), 8, seed=0)) == ["dense"]


def test_whole_models_in_a_format_are_at_hand(structure: ModelStructure) -> None:
    space = space_of(structure, keep=(1.0,))
    found = spread_policies(space, predictor_of(space), 9, seed=0)
    assert found["smallest"]["feed_forward"] == Choice(512, "w4")
    assert found["whole w8a8"]["feed_forward"] == Choice(512, "w8a8")
    assert len(found) == 9
