"""Group counts that keep ratios give."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.units import Branch, ModelStructure, Producer, Unit, UnitKind

RATIOS = st.lists(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1)), min_size=1, max_size=8)


def _unit(groups: int, size: int = 1, *, residual: bool = True) -> Unit:
    return Unit(
        name="unit",
        kind=UnitKind.FEED_FORWARD,
        groups=groups,
        producers=(Producer(layer="up", rows_per_group=size),),
        consumer="down",
        columns_per_group=size,
        in_features=8,
        out_features=8,
        branch=Branch(module="block") if residual else None,
        activation="gelu",
    )


@pytest.mark.parametrize(
    ("groups", "size", "multiple", "ratios", "expected"),
    [
        (1536, 1, 8, (1, 0.75, 0.5, 0.25, 0), (1536, 1152, 768, 384, 0)),
        (12, 32, 8, (1, 0.75, 0.5, 0.25, 0), (12, 9, 6, 3, 0)),
        (12, 12, 8, (1, 0.75, 0.5, 0.25, 0), (12, 8, 6, 4, 0)),
        (100, 1, 8, (1, 0.5, 0.01), (100, 48, 8)),
        (100, 1, 8, (0.99,), (96,)),
        (6, 1, 8, (1, 0.5), (6, 3)),
        (1, 64, 8, (1, 0.5, 0.25), (1,)),
        (4, 1, 1, (0.5, 0.5, 0.51), (2,)),
    ],
)
def test_counts_by_hand(
    groups: int, size: int, multiple: int, ratios: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert _unit(groups, size).counts(ratios, channel_multiple=multiple) == expected


@given(st.integers(1, 300), st.integers(1, 70), st.sampled_from([1, 2, 8, 16, 64]), RATIOS, st.booleans())
def test_counts_are_descending_multiples_in_range(
    groups: int, size: int, multiple: int, ratios: list[float], residual: bool
) -> None:
    counts = _unit(groups, size, residual=residual).counts(tuple(ratios), channel_multiple=multiple)
    assert list(counts) == sorted(set(counts), reverse=True)
    assert all(0 <= count <= groups for count in counts)
    assert (0 in counts) == (0 in ratios and residual)
    assert 1 not in ratios or counts[0] == groups
    step = multiple // math.gcd(multiple, size)
    if step < groups:
        assert all(count * size % multiple == 0 for count in counts if count != groups)
    assert len(counts) >= (1 if residual or any(ratios) else 0)


@given(st.integers(1, 300), st.integers(1, 70), RATIOS, RATIOS)
def test_more_ratios_only_add_counts(groups: int, size: int, some: list[float], more: list[float]) -> None:
    unit = _unit(groups, size)
    few = unit.counts(tuple(some), channel_multiple=8)
    assert set(few) <= set(unit.counts((*some, *more), channel_multiple=8))


@given(st.integers(1, 300), st.floats(0.001, 1), st.floats(0.001, 1))
def test_larger_ratios_never_keep_less(groups: int, one: float, other: float) -> None:
    unit = _unit(groups)
    (less,), (more,) = (unit.counts((ratio,), channel_multiple=8) for ratio in sorted((one, other)))
    assert less <= more


def test_layer_shapes() -> None:
    assert list(_unit(4, 3).layer_shapes(2)) == [("up", 6, 8), ("down", 8, 6)]


def test_unknown_unit_lists_the_units() -> None:
    structure = ModelStructure(architecture="toy", units=(_unit(2),), fixed=(), fixed_bytes=0)
    assert structure.unit("unit").groups == 2
    with pytest.raises(KeyError, match=r"no unit 'other'; the model has \['unit'\]"):
        structure.unit("other")
