"""Least squares against numpy, greedy removal against one that inverts anew for every subset."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.pruning.hessian_ops import BLIND_RIDGE, RIDGES, choose_ridge, greedy_removal, least_squares


def _inputs(tokens: int, features: int, seed: int) -> torch.Tensor:
    """Correlated inputs, float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return torch.randn(tokens, features, generator=generator, dtype=torch.float64) @ mixing


def _weight(out_features: int, features: int, seed: int) -> torch.Tensor:
    return torch.randn(
        out_features, features, generator=torch.Generator().manual_seed(seed + 1000), dtype=torch.float64
    )


@pytest.mark.parametrize("seed", range(3))
def test_least_squares_with_a_tiny_ridge_is_numpys(seed: int) -> None:
    x, w = _inputs(200, 12, seed), _weight(5, 12, seed)
    kept = torch.tensor([0, 3, 4, 7, 11])
    solved = least_squares(w, x.T @ x, kept, ridge=1e-13)
    expected, *_ = np.linalg.lstsq(x[:, kept].numpy(), (x @ w.T).numpy(), rcond=None)
    np.testing.assert_allclose(solved.numpy(), expected.T, rtol=1e-6, atol=1e-8)


def test_least_squares_with_a_ridge_is_the_stacked_problem() -> None:
    x, w = _inputs(60, 8, 0), _weight(3, 8, 0)
    kept, ridge = torch.tensor([1, 2, 6]), 0.05
    gram = x.T @ x
    damping = ridge * float(gram.diagonal().mean())
    # lambda |V - W_S|^2 as rows of the problem
    design = np.vstack([x[:, kept].numpy(), np.sqrt(damping) * np.eye(3)])
    target = np.vstack([(x @ w.T).numpy(), np.sqrt(damping) * w[:, kept].T.numpy()])
    expected, *_ = np.linalg.lstsq(design, target, rcond=None)
    np.testing.assert_allclose(least_squares(w, gram, kept, ridge=ridge).numpy(), expected.T, rtol=1e-9, atol=1e-10)


def test_least_squares_without_data_leaves_columns_as_they_are() -> None:
    w, kept = _weight(4, 6, 0), torch.tensor([1, 5])
    torch.testing.assert_close(least_squares(w, torch.zeros(6, 6, dtype=torch.float64), kept, ridge=1e-3), w[:, kept])


def test_all_kept_is_the_same_weight() -> None:
    x, w = _inputs(50, 6, 1), _weight(4, 6, 1)
    torch.testing.assert_close(least_squares(w, x.T @ x, torch.arange(6), ridge=1e-4), w)


def _output_error(w: torch.Tensor, gram: torch.Tensor, gone: list[int], damping: float) -> float:
    """Least squared error of the damped problem when features are gone, by solving it from scratch."""
    damped = gram + damping * torch.eye(len(gram), dtype=gram.dtype)
    kept = torch.tensor([k for k in range(len(gram)) if k not in gone], dtype=torch.long)
    difference = w.clone()
    if len(kept):
        solved = torch.linalg.solve(damped[kept][:, kept], damped[kept] @ w.T).T
        difference[:, kept] -= solved
    return float(((difference @ damped) * difference).sum())


@pytest.mark.parametrize(("groups", "size", "rest"), [(6, 1, 0), (4, 3, 0), (5, 2, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_removal_is_the_naive_one(groups: int, size: int, rest: int, seed: int) -> None:
    features = groups * size + rest
    x, w = _inputs(80, features, seed), _weight(4, features, seed)
    gram, ridge = x.T @ x, 1e-3
    index = [torch.arange(g * size, (g + 1) * size) for g in range(groups)]
    damping = ridge * float(gram.diagonal().mean())
    expected: list[int] = []
    while len(expected) < groups:
        gone = [k for g in expected for k in index[g].tolist()]
        left = [g for g in range(groups) if g not in expected]
        expected.append(min(left, key=lambda g: _output_error(w, gram, gone + index[g].tolist(), damping)))
    assert greedy_removal(w, gram, index, ridge=ridge) == expected


def test_removing_several_at_once_takes_the_least_costly() -> None:
    x, w = _inputs(80, 9, 0), _weight(4, 9, 0)
    index = [torch.tensor([k]) for k in range(9)]
    one_by_one = greedy_removal(w, x.T @ x, index, ridge=1e-3)
    in_threes = greedy_removal(w, x.T @ x, index, ridge=1e-3, at_once=3)
    assert in_threes[0] == one_by_one[0]
    assert sorted(in_threes) == list(range(9))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 3), st.integers(0, 12), st.integers(1, 4), st.booleans(), st.integers(0, 10**6)
)
def test_any_gram_gives_a_whole_order(
    groups: int, size: int, tokens: int, at_once: int, constant: bool, seed: int
) -> None:
    """Fewer tokens than features, none at all, constant and dead inputs."""
    features = groups * size
    x = torch.ones(tokens, features, dtype=torch.float64) if constant else _inputs(tokens, features, seed)
    x[:, ::2] = 0 if seed % 2 else x[:, ::2]
    w = _weight(3, features, seed)
    index = [torch.arange(g * size, (g + 1) * size) for g in range(groups)]
    order = greedy_removal(w, x.T @ x, index, ridge=1e-4, at_once=at_once)
    assert sorted(order) == list(range(groups))
    kept = torch.cat([index[g] for g in order[groups // 2 :]])
    gram_FKK = torch.stack([x[::2].T @ x[::2], x[1::2].T @ x[1::2]])
    ridge = choose_ridge(w, gram_FKK, kept)
    assert bool(least_squares(w, x.T @ x, kept, ridge=ridge).isfinite().all())


def test_noise_is_what_noisy_inputs_would_say() -> None:
    """Least squares on inputs with noise added, tokens by the thousand, whose outputs are those without it."""
    generator = torch.Generator().manual_seed(0)
    x, w = _inputs(200, 6, 0), _weight(3, 6, 0)
    noise_K = torch.tensor([0.0, 4.0, 0.5, 1.0, 0.0, 2.0], dtype=torch.float64)
    kept = torch.tensor([1, 2, 5])
    solved = least_squares(w, x.T @ x, kept, ridge=1e-9, noise_K=200 * noise_K)
    many = x.repeat(2000, 1)
    noisy = many + torch.randn(many.shape, generator=generator, dtype=torch.float64) * noise_K.sqrt()
    expected = torch.linalg.lstsq(noisy[:, kept], many @ w.T).solution.T
    torch.testing.assert_close(solved, expected, rtol=0.05, atol=0.02)
    clean = least_squares(w, x.T @ x, kept, ridge=1e-9)
    assert float(solved.norm()) < float(clean.norm())


class TestRidge:
    def test_plenty_of_data_wants_little(self) -> None:
        x, w = _inputs(4000, 8, 0), _weight(4, 8, 0)
        folds = torch.stack([x[::2].T @ x[::2], x[1::2].T @ x[1::2]])
        assert choose_ridge(w, folds, torch.arange(4)) <= 1e-3

    def test_fewer_tokens_than_features_want_much(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x, w = torch.randn(20, 40, generator=generator, dtype=torch.float64), _weight(4, 40, 0)
        folds = torch.stack([x[::2].T @ x[::2], x[1::2].T @ x[1::2]])
        assert choose_ridge(w, folds, torch.arange(20)) == RIDGES[-1]

    def test_an_empty_fold_says_nothing(self) -> None:
        x, w = _inputs(20, 6, 0), _weight(4, 6, 0)
        assert choose_ridge(w, torch.stack([x.T @ x, torch.zeros(6, 6)]), torch.arange(3)) == BLIND_RIDGE
