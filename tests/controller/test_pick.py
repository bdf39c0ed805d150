"""Rules in words pick one member of a front."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.front import FrontMember
from controller.job import Objective
from controller.pick import RULE_FORMS, PickError, PickRule, Target, parse_pick, pick

TWO = (Objective.QUALITY, Objective.LATENCY_MS)


def member(number: int, quality: float, latency_ms: float, megabytes: float) -> FrontMember:
    name = "dense" if number == 0 else f"trial {number}"
    size_bytes = int(megabytes * 1e6)
    return FrontMember(
        number=number,
        policy_digest=f"p{number}",
        name=name,
        quality=quality,
        latency_ms=latency_ms,
        size_bytes=size_bytes,
    )


DENSE = member(0, 0.92, 20.0, 90)
FRONT = [DENSE, member(1, 0.915, 9.0, 30), member(2, 0.91, 8.0, 40), member(3, 0.90, 5.0, 12), member(4, 0.5, 1.0, 5)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("fastest within 1% quality", 2),
        ("fastest within 1%", 2),
        ("FASTEST  within 1 %", 2),
        ("fastest within 0.5%", 1),
        ("fastest", 4),
        ("best", 0),
        ("best under 8 ms", 2),
        ("best under 5ms", 3),
        ("best under 30 MB", 1),
        ("smallest within 2%", 3),
        ("smallest under 8 ms within 1%", 2),
        ("smallest within 1% under 9 ms under 35 MB", 1),
        ("knee", 3),
    ],
)
def test_a_rule_picks(text: str, number: int) -> None:
    assert pick(text, FRONT, dense=DENSE, objectives=TWO).member.number == number


@pytest.mark.parametrize("text", RULE_FORMS)
def test_every_form_that_is_named_can_be_read(text: str) -> None:
    assert parse_pick(text).target in Target


def test_the_choice_is_explained() -> None:
    picked = pick("fastest within 1% quality", FRONT, dense=DENSE, objectives=TWO)
    assert picked.explanation == (
        "trial 2: the fastest of 3 front members with quality at least 0.91 (1 points below dense); quality 0.91 "
        "(1.00 points below dense), latency 8 ms (0.40 of dense), size 40 MB (0.44 of dense)"
    )
    assert (
        "trial 3: it is where the front of 5 bends most" in pick("knee", FRONT, dense=DENSE, objectives=TWO).explanation
    )


@pytest.mark.parametrize(
    "text",
    ["", "nicest", "fastest within", "fastest within 1", "fastest within 1.2.3%", "best under 5 s", "knee within 1%",
     "fastest within 1% within 2%", "fastest within -1%", "best under 5 ms or so", "fastestwithin 1%"],
)  # fmt: skip
def test_an_unknown_rule_is_answered_with_the_forms(text: str) -> None:
    with pytest.raises(PickError, match='a pick has one of the forms "fastest within 1% quality"; "best under 5 ms"'):
        parse_pick(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(PickError):
        assert isinstance(parse_pick(text), PickRule)


def test_an_unreachable_rule_names_the_nearest_member() -> None:
    with pytest.raises(PickError, match=r"no front member has latency at most 0.5 ms.*nearest is trial 4: quality 0.5"):
        pick("best under 0.5 ms", FRONT, dense=DENSE, objectives=TWO)
    with pytest.raises(PickError, match="needs a front to pick from"):
        pick("knee", [], dense=DENSE, objectives=TWO)
