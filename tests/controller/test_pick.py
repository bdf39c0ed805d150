"""Rules in words pick one member of a front."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.front import FrontMember
from controller.job import Objective
from controller.pick import RULE_FORMS, PickError, PickRule, Target, parse_pick, pick, trade_off

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
        ("weighted alpha=1", 0),
        ("weighted alpha=0", 4),
        ("Weighted  alpha 0.7", 3),
        ("trial 2", 2),
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
        "(1.00 points below dense), latency 8 ms (0.40 of dense), size 40 MB (0.44 of dense); runner-up trial 1, "
        "against which it gives up 0.50 points and 10 MB and gains 1 ms"
    )
    assert (
        "trial 3: it is where the front of 5 bends most" in pick("knee", FRONT, dense=DENSE, objectives=TWO).explanation
    )


def test_the_runner_up_comes_next_by_the_rule() -> None:
    picked = pick("smallest within 2%", FRONT, dense=DENSE, objectives=TWO)
    assert (picked.member.number, picked.runner_up and picked.runner_up.number) == (3, 1)
    assert picked.explanation.endswith(
        "runner-up trial 1, against which it gives up 1.50 points and gains 4 ms and 18 MB"
    )
    alone = pick("best under 2 ms", FRONT, dense=DENSE, objectives=TWO)
    assert alone.runner_up is None
    assert alone.explanation.endswith("; no other member meets the rule")
    twin = member(7, 0.5, 1.0, 5)
    assert (
        "gives up nothing: they score alike"
        in pick("fastest", [FRONT[4], twin], dense=DENSE, objectives=TWO).explanation
    )


@pytest.mark.parametrize("alpha", [0.0, 0.35, 0.7, 1.0])
def test_a_weighted_pick_has_the_largest_score_by_its_stated_formula(alpha: float) -> None:
    three = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)
    scores = {
        m.number: alpha * (m.quality - 0.5) / (0.92 - 0.5)
        + (1 - alpha) * ((1 - m.latency_ms / 20) + (1 - m.size_bytes / 90e6)) / 2
        for m in FRONT
    }
    picked = pick(f"weighted alpha={alpha}", FRONT, dense=DENSE, objectives=three, chance_quality=0.5)
    ranked = sorted(scores, key=lambda number: -scores[number])
    assert picked.member.number == ranked[0]
    assert picked.runner_up is not None
    assert picked.runner_up.number == ranked[1]
    best, following = scores[ranked[0]], scores[ranked[1]]
    assert f"the largest trade-off score, {best:.4f} (next: {following:.4f}), of {alpha:g} * quality + " in (
        picked.explanation
    )
    assert f"{1 - alpha:g} * saving, where quality is that above chance" in picked.explanation
    assert "share of its latency and size that is saved" in picked.explanation


def test_a_dense_model_scores_alpha() -> None:
    assert trade_off(DENSE, 0.7, DENSE, TWO, 0.5) == pytest.approx(0.7)


def test_a_trial_beside_the_front_can_be_named() -> None:
    poor = member(9, 0.6, 15.0, 80)
    picked = pick("trial 9", FRONT, dense=DENSE, objectives=TWO, others=[poor])
    assert picked.member == poor
    assert picked.explanation.startswith("trial 9: as asked, though it is not on the front; quality 0.6")
    with pytest.raises(PickError, match="trial 8 must have a score; it has none; the front has trials 0, 1, 2, 3, 4"):
        pick("trial 8", FRONT, dense=DENSE, objectives=TWO)


def test_a_weight_beyond_one_is_refused() -> None:
    with pytest.raises(PickError, match=r"alpha weighs quality .* between 0 and 1; got 1\.5"):
        parse_pick("weighted alpha=1.5")


@pytest.mark.parametrize(
    "text",
    ["", "nicest", "fastest within", "fastest within 1", "fastest within 1.2.3%", "best under 5 s", "knee within 1%",
     "fastest within 1% within 2%", "fastest within -1%", "best under 5 ms or so", "fastestwithin 1%",
     "weighted", "weighted alpha=", "weighted alpha=-1", "weighted alpha=0..5", "trial", "trial x", "trial 1.5"],
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


def test_bounds_on_energy_and_memory() -> None:
    cheap = FrontMember(
        number=1,
        policy_digest="a",
        name="trial 1",
        quality=0.8,
        latency_ms=5.0,
        size_bytes=10,
        energy_mj=1.0,
        peak_memory_bytes=100_000_000,
    )
    dense = FrontMember(
        number=0,
        policy_digest="b",
        name="dense",
        quality=0.9,
        latency_ms=10.0,
        size_bytes=20,
        energy_mj=4.0,
        peak_memory_bytes=400_000_000,
    )
    objectives = (Objective.QUALITY, Objective.LATENCY_MS)
    for rule in ("best under 2 mJ", "best under 300 MB memory", "best under 300 MB  memory under 2 mj"):
        assert pick(rule, [cheap, dense], dense=dense, objectives=objectives).member is cheap
    assert pick("best under 300 MB", [cheap, dense], dense=dense, objectives=objectives).member is dense
    with pytest.raises(PickError, match=r"no front member has energy at most 0.5 mJ and peak memory at most 1 MB"):
        pick("best under 0.5 mJ under 1 MB memory", [cheap, dense], dense=dense, objectives=objectives)
