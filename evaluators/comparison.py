"""How outputs are compared with the dense model's: as distributions over classes, or as embeddings.

Shape letters: C classes, M targets, E embeddings of one target, D features of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from evaluators.divergence import constant_overlap, in_chunks, kl_by_target, overlap_by_target

if TYPE_CHECKING:
    import torch

Compare = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(the dense model's outputs, a model's), both of shape (M, C) -> float64 of shape (M,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is measured between two models' outputs.

    Attributes:
        divergence: 0 where they are equal, else above.
        agreement: Fidelity: 0 to 1, exactly 1 where they are equal.
        constant_agreement: (the dense model's outputs) -> mean agreement of the best output that is always the same.
    """

    divergence: Compare
    agreement: Compare
    constant_agreement: Callable[[torch.Tensor], float]


def cosine_distance(reference_MC: torch.Tensor, outputs_MC: torch.Tensor, *, embeddings: int = 1) -> torch.Tensor:
    """1 less the cosine of each target's embeddings with the dense model's, averaged over them.

    Args:
        reference_MC: Embeddings by the dense model, those of one target side by side.
        outputs_MC: Embeddings by the other model.
        embeddings: How many one target has; divides C.

    Returns:
        float64 of shape (M,), 0 to 2, exactly 0 where both are equal; NaN where an output is NaN.
    """

    def compare(reference_TC: torch.Tensor, outputs_TC: torch.Tensor) -> torch.Tensor:
        # Half the squared distance of unit vectors is 1 - cosine, and exact where these are equal.
        difference_TED = _directions(reference_TC, embeddings) - _directions(outputs_TC, embeddings)
        return (difference_TED.square().sum(-1) / 2).mean(-1)

    return in_chunks(compare, reference_MC, outputs_MC)


def cosine_agreement(reference_MC: torch.Tensor, outputs_MC: torch.Tensor, *, embeddings: int = 1) -> torch.Tensor:
    """Mean cosine of each target's embeddings with the dense model's, or 0 where it is negative; shape (M,)."""
    return (1 - cosine_distance(reference_MC, outputs_MC, embeddings=embeddings)).clamp(min=0)


def constant_cosine(reference_MC: torch.Tensor, *, embeddings: int = 1) -> float:
    """Mean cosine of the dense model's embeddings with the one direction that is nearest to all of them, 0 to 1.

    The mean over unit vectors of the cosine with a direction is that of their mean vector with it, and so is largest,
    namely the mean's length, along the mean.
    """
    return float(_directions(reference_MC.double(), embeddings).flatten(0, 1).mean(0).norm().clamp(max=1))


def _directions(outputs_MC: torch.Tensor, embeddings: int) -> torch.Tensor:
    """Embeddings at length 1; shape (M, E, D)."""
    from torch.nn import functional

    return functional.normalize(outputs_MC.reshape(len(outputs_MC), embeddings, -1), dim=-1)


DISTRIBUTIONS = Comparison(divergence=kl_by_target, agreement=overlap_by_target, constant_agreement=constant_overlap)
PAIRS_OF_EMBEDDINGS = Comparison(
    divergence=partial(cosine_distance, embeddings=2),
    agreement=partial(cosine_agreement, embeddings=2),
    constant_agreement=partial(constant_cosine, embeddings=2),
)
