from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.latency.workload import Workload
from evaluators.live_buffers import Buffer, Layout, Step
from evaluators.memory import MemoryPlan, PeakMemory, Stretch, peak_bytes
from search_spaces.policy import Choice, Policy
from search_spaces.units import Branch, ModelStructure, Producer, Unit, UnitKind

TOKENS, WIDTH, HIDDEN = 8 * 16, 64, 256
STREAM = 4 * TOKENS * WIDTH
SCORES = 4 * 8 * 4 * 16 * 16
MASK = 4 * 8 * 16 * 16


def _attention(name: str) -> Unit:
    return Unit(
        name=name,
        kind=UnitKind.ATTENTION,
        groups=4,
        producers=tuple(Producer(layer=f"{name}.{layer}", rows_per_group=16) for layer in "qkv"),
        consumer=f"{name}.o",
        columns_per_group=16,
        in_features=WIDTH,
        out_features=WIDTH,
        branch=Branch(module=name),
    )


def _feed_forward(name: str) -> Unit:
    return Unit(
        name=name,
        kind=UnitKind.FEED_FORWARD,
        groups=HIDDEN,
        producers=(Producer(layer=f"{name}.up", rows_per_group=1),),
        consumer=f"{name}.down",
        columns_per_group=1,
        in_features=WIDTH,
        out_features=WIDTH,
        branch=Branch(module=name),
        activation="gelu",
    )


UNITS = (_attention("a0"), _feed_forward("f0"), _attention("a1"), _feed_forward("f1"))
STRUCTURE = ModelStructure(architecture="x", units=UNITS, fixed=(), fixed_bytes=0)


def _peak(plan: MemoryPlan, **choices: Choice) -> int:
    dense = {unit.name: Choice(unit.groups, "fp32") for unit in UNITS}
    return PeakMemory(STRUCTURE, Workload(batch=8, sequence_length=16), plan).policy_bytes(Policy({**dense, **choices}))


def test_a_runtime_that_frees_holds_what_one_step_needs() -> None:
    # The stream, the hidden numbers before and behind GELU, and their sum with the bias, which its kernel keeps.
    assert _peak(MemoryPlan.FREED) == STREAM + MASK + 3 * 4 * TOKENS * HIDDEN


def test_a_runtime_that_reuses_holds_one_buffer_of_every_shape_that_comes_back() -> None:
    hidden = 4 * TOKENS * HIDDEN
    # Rows: stream, its norm, a projection with and without bias; keys; queries and values; heads side by side.
    rows, heads = 4 * STREAM, 4 * STREAM
    assert _peak(MemoryPlan.REUSED) == rows + heads + 2 * SCORES + MASK + 3 * hidden


def test_a_width_between_equal_ones_has_its_buffers_beside_theirs() -> None:
    units = tuple(_attention(f"a{number}") for number in range(3))
    structure = ModelStructure(architecture="x", units=units, fixed=(), fixed_bytes=0)
    dense = {unit.name: Choice(4, "fp32") for unit in units}
    workload = Workload(batch=8, sequence_length=16)
    for plan, is_more in ((MemoryPlan.REUSED, True), (MemoryPlan.FREED, False)):
        peaks = PeakMemory(structure, workload, plan)
        mixed = peaks.policy_bytes(Policy({**dense, "a1": Choice(2, "fp32")}))
        assert (mixed > peaks.policy_bytes(Policy(dense))) == is_more


def test_int8_products_add_the_bias() -> None:
    int8 = {name: Choice(HIDDEN, "w8a8") for name in ("f0", "f1")}
    hidden = 4 * TOKENS * HIDDEN
    # GELU adds no bias, so that its kernel keeps no sum.
    assert _peak(MemoryPlan.FREED, **int8) == STREAM + MASK + 2 * hidden


def test_what_is_left_out_needs_the_stream_and_its_sum() -> None:
    none = {unit.name: Choice(0, "fp32") for unit in UNITS}
    for plan in MemoryPlan:
        assert _peak(plan, **none) == 2 * STREAM


def test_no_steps_hold_nothing() -> None:
    assert peak_bytes([], MemoryPlan.REUSED) == peak_bytes([], MemoryPlan.FREED) == 0


BUFFERS = st.builds(Buffer, st.sampled_from(list(Layout)[:3]), st.sampled_from([4, 8, 12]))
STEPS = st.lists(
    st.builds(Step, st.dictionaries(BUFFERS, st.integers(1, 3)).map(Counter), st.integers(0, 20)), max_size=12
)


def _cut(steps: list[Step]) -> list[Stretch]:
    """Stretches of up to three steps."""
    return [Stretch.of(steps[start : start + 3]) for start in range(0, len(steps), 3)]


@given(STEPS)
def test_reuse_agrees_with_looking_at_every_buffer_at_every_time(steps: list[Step]) -> None:
    expected = 0
    for now, step in enumerate(steps):
        held = step.scratch_bytes
        for buffer in {buffer for other in steps for buffer in other.live}:
            for place in range(3):
                is_needed = [other.live[buffer] > place for other in steps]
                held += buffer.size_bytes * (any(is_needed[: now + 1]) and any(is_needed[now:]))
        expected = max(expected, held)
    assert peak_bytes(_cut(steps), MemoryPlan.REUSED) == expected


@given(STEPS)
def test_reuse_never_holds_less_than_freeing(steps: list[Step]) -> None:
    assert peak_bytes(_cut(steps), MemoryPlan.REUSED) >= peak_bytes(_cut(steps), MemoryPlan.FREED)


@pytest.mark.parametrize("plan", list(MemoryPlan))
def test_peaks_grow_with_the_batch(plan: MemoryPlan) -> None:
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in UNITS})
    one, two = (PeakMemory(STRUCTURE, Workload(batch=b, sequence_length=16), plan).policy_bytes(dense) for b in (1, 2))
    assert two == 2 * one
