"""Pruning of one unit: an order of removal by saliency, then rows and columns cut and the projection solved again.

Shape letters: O output features, K input features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from search_spaces.units import Unit
from workers.calibrate import Moments
from workers.pruning.hessian_ops import choose_ridge, greedy_removal, least_squares

_ORDER_RIDGE = 1e-4
_SCORINGS = 192
"""Removal costs are computed afresh at least this often, or after each group where a unit has fewer groups."""


class PruningError(ValueError):
    """A unit can't be pruned: its weights or its inputs do not allow it."""


class Saliency(StrEnum):
    """By what groups are ranked."""

    MAGNITUDE = "magnitude"
    """Sum of squared weights of the group in producers and consumer (Han et al., 1506.02626, for groups)."""
    HESSIAN = "hessian"
    """Increase of the output's squared error, greedy with update (ZipLM, 2302.04089)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """A linear layer: weight of shape (O, K) and bias of shape (O,), or none."""

    weight_OK: Tensor
    bias_O: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedUnit:
    """A unit's layers after pruning, in float32.

    Attributes:
        kept: Groups that stay, ascending.
        layers: By layer name; with nothing kept only the consumer, with no columns and the branch's mean as bias.
    """

    kept: tuple[int, ...]
    layers: Mapping[str, LayerWeights]


def removal_order(
    unit: Unit, layers: Mapping[str, LayerWeights], moments: Moments | None, *, saliency: Saliency = Saliency.HESSIAN
) -> tuple[int, ...]:
    """Order all groups of a unit, the first to go first; every keep takes a prefix, so that choices are nested.

    Args:
        unit: The unit.
        layers: Its dense layers.
        moments: Second moments of the consumer's input; needed by the Hessian saliency.
        saliency: By what groups are ranked.

    Raises:
        PruningError: Weights are not finite.
    """
    _check_finite(unit, layers)
    groups = _columns(unit)
    if saliency is Saliency.HESSIAN and moments is not None:
        weight_OK, gram_FKK = _solvable(layers[unit.consumer], moments)
        return tuple(
            greedy_removal(
                weight_OK,
                gram_FKK.sum(0),
                list(groups),
                ridge=_ORDER_RIDGE,
                at_once=max(1, unit.groups // _SCORINGS),
            )
        )
    energy_G = (layers[unit.consumer].weight_OK.double() ** 2).sum(0)[groups].sum(1)
    for producer in unit.producers:
        rows_G = (layers[producer.layer].weight_OK.double() ** 2).sum(1).view(unit.groups, producer.rows_per_group)
        energy_G += rows_G.sum(1)
    return tuple(energy_G.argsort(stable=True).tolist())


def prune_unit(
    unit: Unit,
    layers: Mapping[str, LayerWeights],
    order: tuple[int, ...],
    keep: int,
    moments: Moments | None,
) -> PrunedUnit:
    """Keep the last `keep` groups of an order of removal.

    Rows of producers and columns of the consumer are cut; with moments, the consumer and its bias are solved again by
    least squares, so that the unit's output changes as little as possible on the calibration data.

    Args:
        unit: The unit.
        layers: Its dense layers.
        order: From `removal_order`.
        keep: Groups that stay, 0 to unit.groups.
        moments: Second moments of the consumer's input; None leaves the kept columns as they are.

    Raises:
        PruningError: Weights are not finite.
    """
    _check_finite(unit, layers)
    if keep == unit.groups:
        return PrunedUnit(kept=tuple(range(unit.groups)), layers=dict(layers))
    kept = sorted(order[unit.groups - keep :])
    columns = _columns(unit)[kept].flatten()
    found: dict[str, LayerWeights] = {}
    if keep:
        for producer in unit.producers:
            rows = _block_indices(kept, producer.rows_per_group)
            dense = layers[producer.layer]
            bias = None if dense.bias_O is None else dense.bias_O[rows]
            found[producer.layer] = LayerWeights(weight_OK=dense.weight_OK[rows], bias_O=bias)
    found[unit.consumer] = _cut_consumer(layers[unit.consumer], columns, moments)
    return PrunedUnit(kept=tuple(kept), layers=found)


def _check_finite(unit: Unit, layers: Mapping[str, LayerWeights]) -> None:
    for name, layer in layers.items():
        parts = (layer.weight_OK,) if layer.bias_O is None else (layer.weight_OK, layer.bias_O)
        if not all(bool(part.isfinite().all()) for part in parts):
            raise PruningError(
                f"weights must be finite; got NaN or infinity in {name} (unit {unit.name}); repair the model, or "
                "exclude the unit"
            )


def _cut_consumer(dense: LayerWeights, columns: Tensor, moments: Moments | None) -> LayerWeights:
    if moments is None:
        return LayerWeights(weight_OK=dense.weight_OK[:, columns], bias_O=dense.bias_O)
    weight_OK, gram_FKK = _solvable(dense, moments)
    constant = torch.arange(dense.weight_OK.shape[1], weight_OK.shape[1])
    kept = torch.cat([columns, constant])
    if not len(kept):
        return LayerWeights(weight_OK=dense.weight_OK[:, columns], bias_O=None)
    ridge = choose_ridge(weight_OK, gram_FKK, kept)
    solved_OS = least_squares(weight_OK, gram_FKK.sum(0), kept, ridge=ridge).float()
    width = len(columns)
    bias_O = None if dense.bias_O is None else solved_OS[:, width].contiguous()
    return LayerWeights(weight_OK=solved_OS[:, :width].contiguous(), bias_O=bias_O)


def _solvable(layer: LayerWeights, moments: Moments) -> tuple[Tensor, Tensor]:
    """Weight and Gram matrices to solve for: the bias is one more column where the layer has one."""
    if layer.bias_O is None:
        return layer.weight_OK.double(), moments.gram_FKK[:, :-1, :-1]
    return torch.cat([layer.weight_OK.double(), layer.bias_O.double()[:, None]], dim=1), moments.gram_FKK


def _columns(unit: Unit) -> Tensor:
    """Input columns of the consumer by group, shape (groups, columns_per_group)."""
    return torch.arange(unit.groups * unit.columns_per_group).view(unit.groups, unit.columns_per_group)


def _block_indices(groups: list[int], size: int) -> Tensor:
    return (torch.tensor(groups)[:, None] * size + torch.arange(size)).flatten()
