"""Overlap with the dense outputs: against sums by hand, its bounds, and what guessing reaches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluators import divergence
from evaluators.divergence import constant_overlap, kl_by_target, mean_by_row, overlap_by_target

LOGITS = st.floats(-30, 30, width=32)


def pairs() -> st.SearchStrategy[tuple[torch.Tensor, torch.Tensor]]:
    """Logits of two models, shape (2, M, C)."""
    shapes = st.tuples(st.just(2), st.integers(1, 6), st.integers(1, 5))
    both = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=LOGITS))
    return both.map(lambda found: (torch.from_numpy(found[0]), torch.from_numpy(found[1])))


def probabilities(logits: torch.Tensor) -> list[list[float]]:
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(-1, keepdims=True))
    found: list[list[float]] = (powers / powers.sum(-1, keepdims=True)).tolist()
    return found


@settings(deadline=None)
@given(pairs())
def test_overlap_is_the_sum_of_the_smaller_probabilities(both: tuple[torch.Tensor, torch.Tensor]) -> None:
    found = overlap_by_target(*both).tolist()
    rows = zip(*(probabilities(logits) for logits in both), strict=True)
    assert found == pytest.approx([sum(min(p, q) for p, q in zip(*row, strict=True)) for row in rows], abs=1e-12)


@settings(deadline=None)
@given(pairs())
def test_overlap_is_symmetric_bounded_and_exact_for_the_model_itself(both: tuple[torch.Tensor, torch.Tensor]) -> None:
    dense, other = both
    found = overlap_by_target(dense, other)
    assert found.equal(overlap_by_target(other, dense))
    assert bool(((found >= 0) & (found <= 1)).all())
    assert overlap_by_target(dense, dense).tolist() == [1.0] * len(dense)


@settings(deadline=None)
@given(pairs())
def test_what_overlap_lacks_is_bounded_by_the_divergence(both: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Pinsker's inequality, and that of Bretagnolle and Huber."""
    distance = 1 - overlap_by_target(*both).numpy()
    nats = kl_by_target(*both).numpy()
    assert (distance <= np.sqrt(np.maximum(nats, 0) / 2) + 1e-7).all()
    assert (distance <= np.sqrt(-np.expm1(-np.maximum(nats, 0))) + 1e-7).all()


def test_by_hand() -> None:
    dense = torch.tensor([[0.0, 0.0], [np.log(3), 0.0], [50.0, -50.0]])
    other = torch.tensor([[np.log(3), 0.0], [0.0, np.log(3)], [-50.0, 50.0]])
    assert overlap_by_target(dense, other).tolist() == pytest.approx([0.75, 0.5, 0.0])
    assert overlap_by_target(dense, other.masked_fill(other == 0, float("nan"))).isnan().tolist() == [True, True, False]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, other = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0))
    whole = overlap_by_target(dense, other), kl_by_target(dense, other), constant_overlap(dense)
    monkeypatch.setattr(divergence, "_CHUNK_ELEMENTS", 60)
    assert overlap_by_target(dense, other).equal(whole[0])
    assert kl_by_target(dense, other).equal(whole[1])
    assert constant_overlap(dense) == pytest.approx(whole[2], abs=1e-12)


@pytest.mark.parametrize(("targets", "classes"), [(1, 3), (5, 2), (12, 4), (30, 7)])
def test_guessing_reaches_what_a_linear_programme_finds(targets: int, classes: int) -> None:
    """Variables are the guess q (C) and overlaps t (M, C), at most q and at most p each; their sum is to be large."""
    from scipy.optimize import linprog

    logits = 3 * torch.randn(targets, classes, generator=torch.Generator().manual_seed(targets))
    p = np.array(probabilities(logits)).ravel()
    below_q = np.hstack([-np.tile(np.eye(classes), (targets, 1)), np.eye(targets * classes)])
    best = linprog(
        np.concatenate([np.zeros(classes), np.full(targets * classes, -1 / targets)]),
        A_ub=below_q,
        b_ub=np.zeros(targets * classes),
        A_eq=np.concatenate([np.ones(classes), np.zeros(targets * classes)])[None],
        b_eq=[1.0],
        bounds=[(0, 1)] * classes + [(0, value) for value in p],
    )
    assert constant_overlap(logits) == pytest.approx(-best.fun, abs=1e-6)


@settings(deadline=None)
@given(pairs())
def test_no_mean_of_outputs_guesses_better(both: tuple[torch.Tensor, torch.Tensor]) -> None:
    dense = both[0]
    mean = dense.double().softmax(-1).mean(0).clamp(min=1e-300).log().expand_as(dense)
    assert constant_overlap(dense) >= float(overlap_by_target(dense, mean).mean()) - 1e-6


def test_guessing_of_sure_answers_is_the_share_of_the_commonest() -> None:
    sure = 100.0 * torch.eye(3)[[0, 0, 0, 1, 2]]
    assert constant_overlap(sure) == pytest.approx(0.6)
    assert constant_overlap(torch.ones(4, 3)) == pytest.approx(1.0)


def test_means_by_row() -> None:
    found = mean_by_row(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 2, 2]), 3)
    assert found[[0, 2]].tolist() == [1.0, 4.0]
    assert found.isnan().tolist() == [False, True, False]
