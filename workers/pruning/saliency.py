"""By what groups of a unit are ranked, beside the greedy Hessian order: scores that look at each group by itself.

Shape letters: O output features, K input features, G groups, R rows or columns of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from search_spaces.units import Unit


class Saliency(StrEnum):
    """By what groups are ranked."""

    MAGNITUDE_L1 = "magnitude_l1"
    """Sum of absolute weights of the group in producers and consumer (Li et al., 1608.08710, for filters)."""
    MAGNITUDE_L2 = "magnitude_l2"
    """Sum of squared weights of the group in producers and consumer (Han et al., 1506.02626, for groups)."""
    TAYLOR = "taylor"
    """First-order change of the loss without the group, |w dL/dw| (Molchanov et al., 1611.06440 and 1906.10771)."""
    ACTIVATION = "activation"
    """Norm of the group's activations times norm of the columns that read them (Sun et al., Wanda, 2306.11695)."""
    HESSIAN = "hessian"
    """Increase of the output's squared error, greedy with update (Kurtic et al., ZipLM, 2302.04089)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """A linear layer: weight of shape (O, K) and bias of shape (O,), or none."""

    weight_OK: Tensor
    bias_O: Tensor | None


def magnitude_scores(unit: Unit, layers: Mapping[str, LayerWeights], *, power: int) -> Tensor:
    """Sum of the weights' powers by group, over the producers' rows and the consumer's columns.

    Args:
        unit: The unit.
        layers: Its dense layers.
        power: 1 sums absolute values, 2 squares.

    Returns:
        Scores of shape (G,), float64.
    """
    column_K = (layers[unit.consumer].weight_OK.double().abs() ** power).sum(0)
    score_G = column_K.view(unit.groups, unit.columns_per_group).sum(1)
    for producer in unit.producers:
        row_O = (layers[producer.layer].weight_OK.double().abs() ** power).sum(1)
        score_G += row_O.view(producer.blocks, unit.groups, producer.rows_per_group).sum((0, 2))
    return score_G


def activation_scores(weight_OK: Tensor, gram_KK: Tensor, *, groups: int) -> Tensor:
    """Squared output of each group where features were uncorrelated: sum over its columns of |x_k|^2 |w_k|^2.

    Args:
        weight_OK: The consumer's weight.
        gram_KK: X^T X over calibration tokens.
        groups: How many groups share the K columns.

    Returns:
        Scores of shape (G,), float64.

    Reference: Sun et al., Wanda, 2306.11695, equation 1, squared and summed over a group.
    """
    column_K = (weight_OK.double() ** 2).sum(0).to(gram_KK.device) * gram_KK.diagonal()
    return column_K.view(groups, -1).sum(1)
