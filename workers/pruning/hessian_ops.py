"""Greedy structured removal and least squares on a Gram matrix.

Shape letters: O output features, K input features, G groups, R rows of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLIND_RIDGE = 1e-2
"""The ridge where there is nothing to validate on."""
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def least_squares(weight_OK: Tensor, gram_KK: Tensor, kept: Tensor, *, ridge: float) -> Tensor:
    """Solve the projection again for the features that stay.

    Minimises |X W^T - X_S V^T|^2 + lambda |V - W_S|^2 over V, where lambda is `ridge` times the mean diagonal of the
    Gram matrix. Shrinking towards the old columns instead of zero leaves them as they are where data says nothing.

    Args:
        weight_OK: Dense weight, float64, shape (O, K).
        gram_KK: X^T X over calibration tokens, float64, shape (K, K).
        kept: Indices S of the features that stay.
        ridge: Relative ridge, above 0.

    Returns:
        V of shape (O, |S|).
    """
    scale = float(gram_KK.diagonal().mean())
    damping = ridge * scale if scale > 0 else 1.0
    gram_SS = gram_KK[kept][:, kept] + damping * torch.eye(len(kept), dtype=gram_KK.dtype, device=gram_KK.device)
    target_SO = gram_KK[kept] @ weight_OK.T + damping * weight_OK[:, kept].T
    factor = torch.linalg.cholesky(gram_SS)
    return torch.cholesky_solve(target_SO, factor).T


def choose_ridge(weight_OK: Tensor, gram_FKK: Tensor, kept: Tensor) -> float:
    """Choose the ridge by cross-validation: solved on one fold of the tokens, its error taken on the other.

    Args:
        weight_OK: Dense weight, shape (O, K).
        gram_FKK: Gram matrix of each fold, shape (F, K, K).
        kept: Indices of the features that stay.

    Returns:
        One of `RIDGES`; `BLIND_RIDGE` where a fold is empty, as with a single calibration example.
    """
    if not bool((gram_FKK.diagonal(dim1=1, dim2=2).sum(1) > 0).all()):
        return BLIND_RIDGE
    total_KK = gram_FKK.sum(0)

    def error(ridge: float) -> float:
        found = 0.0
        for fold_KK in gram_FKK:
            solved_OS = least_squares(weight_OK, total_KK - fold_KK, kept, ridge=ridge)
            difference_OK = weight_OK.clone()
            difference_OK[:, kept] -= solved_OS
            found += float(((difference_OK @ fold_KK) * difference_OK).sum())
        return found

    return min(RIDGES, key=error)


def greedy_removal(
    weight_OK: Tensor, gram_KK: Tensor, groups: Sequence[Tensor], *, ridge: float, at_once: int = 1
) -> list[int]:
    """Order groups of input features by what their removal costs, re-scored after each removal.

    The cost of group g is tr(W_g [(H^-1)_gg]^-1 W_g^T), where W already makes up for what went before; the least costly
    group goes next, W and H^-1 are updated by the optimal brain surgeon's formula.

    Args:
        weight_OK: Weight of the output projection, float64, shape (O, K).
        gram_KK: Gram matrix H of its inputs, float64, shape (K, K).
        groups: For each group the indices of its features; features in no group always stay.
        ridge: Relative ridge that makes H invertible.
        at_once: Groups removed between two scorings.

    Returns:
        All groups, the first removed first.

    Reference: Hassibi and Stork, Optimal Brain Surgeon (1992); Frantar and Alistarh, 2208.11580, and Kurtic et al.,
    ZipLM, 2302.04089, equations 2 and 3.
    """
    damping = ridge * float(gram_KK.diagonal().mean()) or 1.0
    eye_KK = torch.eye(len(gram_KK), dtype=gram_KK.dtype, device=gram_KK.device)
    inverse_KK = torch.cholesky_inverse(torch.linalg.cholesky(gram_KK + damping * eye_KK))
    weight_OK = weight_OK.clone()
    index_GR = torch.stack(list(groups))
    left = list(range(len(groups)))
    order: list[int] = []
    while left:
        cost_G = _removal_cost(weight_OK, inverse_KK, index_GR[left])
        count = min(at_once, len(left))
        chosen = [left[i] for i in cost_G.argsort(stable=True)[:count].tolist()]
        order.extend(chosen)
        left = [group for group in left if group not in set(chosen)]
        if left:
            _remove(weight_OK, inverse_KK, index_GR[chosen].flatten())
    return order


def _removal_cost(weight_OK: Tensor, inverse_KK: Tensor, index_GR: Tensor) -> Tensor:
    weight_GRO = weight_OK.T[index_GR]
    inverse_GRR = inverse_KK[index_GR[:, :, None], index_GR[:, None, :]]
    solved_GRO: Tensor = torch.linalg.solve(inverse_GRR, weight_GRO)
    return (weight_GRO * solved_GRO).sum((1, 2))


def _remove(weight_OK: Tensor, inverse_KK: Tensor, gone: Tensor) -> None:
    """Update W and H^-1 in place; rows and columns of what is gone become zero, its diagonal one."""
    block = inverse_KK[gone][:, gone]
    solved_RK = torch.linalg.solve(block, inverse_KK[gone])
    weight_OK -= weight_OK[:, gone] @ solved_RK
    inverse_KK -= inverse_KK[:, gone] @ solved_RK
    weight_OK[:, gone] = 0
    inverse_KK[gone] = 0
    inverse_KK[:, gone] = 0
    inverse_KK[gone, gone] = 1
