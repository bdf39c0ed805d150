"""Greedy structured removal and least squares on a Gram matrix.

Shape letters: O output features, K input features, G groups, R rows of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLIND_RIDGE = 1e-2
"""The ridge where there is nothing to validate on."""
FISHER_SHARE = 0.9
"""Share of the Fisher metric in the metric of outputs; the rest is the plain norm."""
_PENDING_FEATURES = 64
"""Features that are removed before the matrices are updated, all at once."""
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def least_squares(
    weight_OK: Tensor, gram_KK: Tensor, kept: Tensor, *, ridge: float, noise_K: Tensor | None = None
) -> Tensor:
    """Solve the projection again for the features that stay.

    Minimises |X W^T - (X_S + N_S) V^T|^2 + lambda |V - W_S|^2 over V, where N is noise and lambda is `ridge` times the
    mean diagonal of the Gram matrix. Shrinking towards the old columns instead of zero leaves them as they are where
    data says nothing.

    Args:
        weight_OK: Dense weight, float64, shape (O, K).
        gram_KK: X^T X over calibration tokens, float64, shape (K, K).
        kept: Indices S of the features that stay.
        ridge: Relative ridge, above 0.
        noise_K: Squared noise of each feature, summed over the tokens as the Gram matrix is; None is no noise.

    Returns:
        V of shape (O, |S|).
    """
    scale = float(gram_KK.diagonal().mean())
    damping = ridge * scale if scale > 0 else 1.0
    target_SO = gram_KK[kept] @ weight_OK.T + damping * weight_OK[:, kept].T
    gram_SS = gram_KK[kept][:, kept]
    if noise_K is not None:
        gram_SS.diagonal().add_(noise_K[kept])
    factor_SS = damped_cholesky(gram_SS, damping)
    return torch.cholesky_solve(target_SO, factor_SS).T


def damped_cholesky(gram_KK: Tensor, damping: float) -> Tensor:
    """Lower Cholesky factor of a Gram matrix with `damping` added to its diagonal.

    Where the sums were rounded so that this is not enough, as with inputs of which a few are very large, the damping
    grows tenfold until it is.

    Args:
        gram_KK: Finite, symmetric and positive semi-definite but for rounding; shape (K, K).
        damping: Above 0.
    """
    while True:
        damped_KK = gram_KK.clone()
        damped_KK.diagonal().add_(damping)
        found = torch.linalg.cholesky_ex(damped_KK)
        if not int(found.info):
            factor_KK: Tensor = found.L
            return factor_KK
        damping *= 10


def output_root(fisher_OO: Tensor) -> Tensor:
    """A root R of a metric of outputs, so that |R dy|^2 weighs an error dy by it.

    A share of the plain norm is kept: what a sample of examples never asked for may matter to others.

    Args:
        fisher_OO: The metric, of mean diagonal 1, float64, shape (O, O).

    Returns:
        Upper triangular, shape (O, O).
    """
    mixed_OO = FISHER_SHARE * fisher_OO
    return damped_cholesky(mixed_OO, 1 - FISHER_SHARE).T


def choose_ridge(weight_OK: Tensor, gram_FKK: Tensor, kept: Tensor, *, noise_K: Tensor | None = None) -> float:
    """Choose the ridge by cross-validation: solved on one fold of the tokens, its error taken on the other.

    Args:
        weight_OK: Dense weight, shape (O, K).
        gram_FKK: Gram matrix of each fold, shape (F, K, K).
        kept: Indices of the features that stay.
        noise_K: As in `least_squares`, over all folds.

    Returns:
        One of `RIDGES`; `BLIND_RIDGE` where a fold is empty, as with a single calibration example.
    """
    if not bool((gram_FKK.diagonal(dim1=1, dim2=2).sum(1) > 0).all()):
        return BLIND_RIDGE
    total_KK, folds = gram_FKK.sum(0), len(gram_FKK)
    rest_K = None if noise_K is None else noise_K * (folds - 1) / folds

    def error(ridge: float) -> float:
        found = 0.0
        for fold_KK in gram_FKK:
            solved_OS = least_squares(weight_OK, total_KK - fold_KK, kept, ridge=ridge, noise_K=rest_K)
            difference_OK = weight_OK.clone()
            difference_OK[:, kept] -= solved_OS
            found += float(((difference_OK @ fold_KK) * difference_OK).sum())
            if noise_K is not None:
                found += float((solved_OS.square() @ noise_K[kept]).sum()) / folds
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
    return shared_removal([(weight_OK, gram_KK, torch.stack(list(groups)))], ridge=ridge, at_once=at_once)


def shared_removal(problems: Sequence[tuple[Tensor, Tensor, Tensor]], *, ridge: float, at_once: int = 1) -> list[int]:
    """Order groups that several projections read: as `greedy_removal`, by the sum of what their removal costs in each.

    Args:
        problems: Of each projection its weight (O, K), scaled so that errors can be added up, the Gram matrix of its
            inputs (K, K), and the indices of each group's features (G, R).
        ridge: Relative ridge that makes Gram matrices invertible.
        at_once: Groups removed between two scorings.

    Returns:
        All groups, the first removed first.
    """
    left_G = torch.arange(len(problems[0][2]), device=problems[0][1].device)
    matrices = []
    for weight_OK, gram_KK, index_GR in problems:
        features_K = _groups_first(index_GR.to(gram_KK.device), len(gram_KK))
        matrices.append((damped_inverse(gram_KK, ridge=ridge)[features_K][:, features_K], weight_OK[:, features_K]))
    order: list[int] = []
    while len(left_G):
        pending = [
            _Pending(inverse_KK, weight_OK, groups=len(left_G), width=index_GR.shape[1])
            for (inverse_KK, weight_OK), (_, _, index_GR) in zip(matrices, problems, strict=True)
        ]
        alive_G = pending[0].alive_G
        while alive_G.any() and all(part.features < _PENDING_FEATURES for part in pending):
            cost_G = torch.stack([part.costs() for part in pending]).sum(0)
            chosen = cost_G.argsort(stable=True)[: min(at_once, int(alive_G.sum()))]
            order.extend(left_G[chosen].tolist())
            for part in pending:
                part.remove(chosen)
        matrices = [part.settle() for part in pending]
        left_G = left_G[alive_G]
    return order


def damped_inverse(gram_KK: Tensor, *, ridge: float) -> Tensor:
    """Inverse of a Gram matrix whose diagonal was raised by `ridge` times its mean; the identity's where it is 0."""
    damping = ridge * float(gram_KK.diagonal().mean()) or 1.0
    return torch.cholesky_inverse(damped_cholesky(gram_KK, damping))


def _groups_first(index_GR: Tensor, features: int) -> Tensor:
    """All features, those of groups first and group by group."""
    is_rest_K = torch.ones(features, dtype=torch.bool, device=index_GR.device)
    is_rest_K[index_GR.flatten()] = False
    return torch.cat([index_GR.flatten(), is_rest_K.nonzero().flatten()])


class _Pending:
    """Removals that are not yet carried out on the matrices, which are read-only: a low-rank difference to them.

    A removal changes H^-1 by -X X^T and W by -P X^T, where X is a column of H^-1 over the root of its diagonal. What
    the next choice needs is small: of each group its diagonal block D of H^-1 and S of W^T W. So a removal costs a
    product of W with a vector instead of an update of all of H^-1.

    Args:
        inverse_KK: H^-1, features of the groups first.
        weight_OK: W, in the same order.
        groups: How many groups there are.
        width: Features of a group.
    """

    def __init__(self, inverse_KK: Tensor, weight_OK: Tensor, *, groups: int, width: int) -> None:
        self._inverse_KK, self._weight_OK, self._width = inverse_KK, weight_OK, width
        self._x_KP, self._p_OP = inverse_KK[:, :0], weight_OK[:, :0]
        self._index_GR = torch.arange(groups * width, device=inverse_KK.device).view(groups, width)
        columns_GRO = weight_OK.T[self._index_GR]
        self._products_GRR = columns_GRO @ columns_GRO.transpose(1, 2)
        self._inverse_GRR = inverse_KK[self._index_GR[:, :, None], self._index_GR[:, None, :]]
        self.alive_G = torch.ones(groups, dtype=torch.bool, device=inverse_KK.device)

    @property
    def features(self) -> int:
        """Features removed so far."""
        return self._x_KP.shape[1]

    def costs(self) -> Tensor:
        """What the removal of each group costs, (G,); infinite for those that are gone."""
        if self._width == 1:
            cost_G = (self._products_GRR / self._inverse_GRR).flatten()
        else:
            solved_GRR: Tensor = torch.linalg.solve(self._inverse_GRR, self._products_GRR)
            cost_G = solved_GRR.diagonal(dim1=1, dim2=2).sum(1)
        return cost_G.masked_fill(~self.alive_G, torch.inf)

    def remove(self, chosen: Tensor) -> None:
        """Take groups away together."""
        self.alive_G[chosen] = False
        gone = self._index_GR[chosen].flatten()
        column_KS = self._inverse_KK[:, gone] - self._x_KP @ self._x_KP[gone].T
        weight_OS = self._weight_OK[:, gone] - self._p_OP @ self._x_KP[gone].T
        root_SS = torch.linalg.cholesky(column_KS[gone])
        x_KS = torch.linalg.solve_triangular(root_SS, column_KS.T, upper=False).T
        p_OS = torch.linalg.solve_triangular(root_SS, weight_OS.T, upper=False).T
        cross_KS = self._weight_OK.T @ p_OS - self._x_KP @ (self._p_OP.T @ p_OS)
        x_GRS, cross_GRS = x_KS[self._index_GR], cross_KS[self._index_GR]
        mixed_GRR = (cross_GRS - x_GRS @ (p_OS.T @ p_OS) / 2) @ x_GRS.transpose(1, 2)
        self._products_GRR = self._products_GRR - mixed_GRR - mixed_GRR.transpose(1, 2)
        self._inverse_GRR = self._inverse_GRR - x_GRS @ x_GRS.transpose(1, 2)
        self._inverse_GRR[~self.alive_G] = torch.eye(self._width, dtype=x_KS.dtype, device=x_KS.device)
        self._x_KP, self._p_OP = torch.cat([self._x_KP, x_KS], 1), torch.cat([self._p_OP, p_OS], 1)

    def settle(self) -> tuple[Tensor, Tensor]:
        """H^-1 and W of the features that stay."""
        rest = len(self._inverse_KK) - self._index_GR.numel()
        stays_K = torch.cat([self.alive_G.repeat_interleave(self._width), self.alive_G.new_ones(rest)])
        x_KP = self._x_KP[stays_K]
        inverse_KK = self._inverse_KK[stays_K][:, stays_K] - x_KP @ x_KP.T
        return inverse_KK, self._weight_OK[:, stays_K] - self._p_OP @ x_KP.T
