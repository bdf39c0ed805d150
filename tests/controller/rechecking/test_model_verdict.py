"""When a model in use counts as below its constraint."""

import pytest

from controller.job import RecheckConfig
from controller.rechecking.report import Verdict
from controller.rechecking.verdict import judge, loss_of

CONFIG = RecheckConfig()


def answers(right: int, of: int) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


@pytest.mark.parametrize(
    ("model", "dense", "verdict"),
    [
        (answers(180, 200), answers(190, 200), Verdict.FINE),
        (answers(199, 200), answers(190, 200), Verdict.FINE),
        (answers(120, 200), answers(190, 200), Verdict.BELOW),
        (answers(168, 200), answers(190, 200), Verdict.CANNOT_TELL),
        (answers(0, 29), answers(29, 29), Verdict.CANNOT_TELL),
    ],
)
def test_a_verdict_by_the_same_examples(model: list[float], dense: list[float], verdict: Verdict) -> None:
    loss = loss_of(model, dense, 0.5, CONFIG)
    assert loss is not None
    assert loss.paired
    assert loss.drop.mean == pytest.approx((sum(dense) - sum(model)) / len(dense))
    assert loss.drop.low <= loss.drop.mean <= loss.drop.high
    assert judge(loss, max_quality_drop=0.1, examples=len(model)) is verdict


def test_pairing_tells_what_two_intervals_apart_would_not() -> None:
    """Data on which both err on half: the loss of 6 in 100 shows only where both see the same examples."""
    dense, model = answers(250, 500), answers(220, 500)
    paired = loss_of(model, dense, None, CONFIG)
    recorded = loss_of(model, None, 0.5, CONFIG)
    assert paired is not None
    assert recorded is not None
    assert paired.drop.mean == pytest.approx(recorded.drop.mean)
    assert judge(paired, max_quality_drop=0.03, examples=500) is Verdict.BELOW
    assert judge(recorded, max_quality_drop=0.03, examples=500) is Verdict.CANNOT_TELL


def test_without_anything_to_compare_with_nothing_can_be_told() -> None:
    assert loss_of([], None, 0.9, CONFIG) is None
    assert loss_of(answers(9, 10), None, None, CONFIG) is None
    assert judge(None, max_quality_drop=0.1, examples=500) is Verdict.CANNOT_TELL
