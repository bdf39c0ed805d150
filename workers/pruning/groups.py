"""Pruning of one unit: an order of removal by saliency, then rows and columns cut and the projection solved again.

Shape letters: O output features, K input features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.units import Unit
from workers.calibrate import Moments
from workers.pruning.hessian_ops import choose_ridge, greedy_removal, least_squares, output_root
from workers.pruning.saliency import LayerWeights, Saliency, activation_scores, magnitude_scores

_ORDER_RIDGE = 1e-4
_SCORINGS = 2048
"""Removal costs are computed afresh at least this often, or after each group where a unit has fewer groups."""
_POWERS = {Saliency.MAGNITUDE_L1: 1, Saliency.MAGNITUDE_L2: 2}


class PruningError(ValueError):
    """A unit can't be pruned: its weights or its inputs do not allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedUnit:
    """A unit's layers after pruning, in the type of the dense ones.

    Attributes:
        kept: Groups that stay, ascending.
        layers: By layer name; with nothing kept only the consumer, with no columns and the branch's mean as bias.
    """

    kept: tuple[int, ...]
    layers: Mapping[str, LayerWeights]


def removal_order(
    unit: Unit,
    layers: Mapping[str, LayerWeights],
    moments: Moments | None,
    *,
    saliency: Saliency = Saliency.HESSIAN,
    fisher_OO: Tensor | None = None,
    taylor_G: Tensor | None = None,
) -> tuple[int, ...]:
    """Order all groups of a unit, the first to go first; every keep takes a prefix, so that choices are nested.

    Args:
        unit: The unit.
        layers: Its dense layers.
        moments: Second moments of the consumer's input; needed by the Hessian and the activation saliency.
        saliency: By what groups are ranked.
        fisher_OO: How much an error of the output matters, for the Hessian saliency; None counts all directions alike.
        taylor_G: First-order changes of the loss, needed by the Taylor saliency.

    Raises:
        PruningError: Weights are not finite, or the saliency lacks what it needs.
    """
    check_finite(layers, unit.name)
    if saliency is Saliency.HESSIAN and moments is not None:
        return _hessian_order(unit, layers[unit.consumer], moments, fisher_OO)
    if saliency is Saliency.ACTIVATION and moments is not None:
        gram_KK = moments.gram_KK[:-1, :-1]
        scores_G = activation_scores(layers[unit.consumer].weight_OK, gram_KK, groups=unit.groups)
    elif saliency is Saliency.TAYLOR and taylor_G is not None:
        scores_G = taylor_G
    elif saliency in _POWERS:
        scores_G = magnitude_scores(unit, layers, power=_POWERS[saliency])
    else:
        raise PruningError(
            f"saliency {saliency.value!r} looks at calibration data; got none (unit {unit.name}); give some, or take "
            f"one of {', '.join(_POWERS)}"
        )
    return tuple(scores_G.argsort(stable=True).tolist())


def _hessian_order(unit: Unit, consumer: LayerWeights, moments: Moments, fisher_OO: Tensor | None) -> tuple[int, ...]:
    weight_OK, gram_FKK = solvable(consumer, moments)
    if fisher_OO is not None:
        weight_OK = output_root(fisher_OO.to(weight_OK.device)) @ weight_OK
    at_once = max(1, unit.groups // _SCORINGS)
    return tuple(greedy_removal(weight_OK, gram_FKK.sum(0), list(_columns(unit)), ridge=_ORDER_RIDGE, at_once=at_once))


def prune_unit(
    unit: Unit,
    layers: Mapping[str, LayerWeights],
    order: tuple[int, ...],
    keep: int,
    moments: Moments | None,
    *,
    rounded_inputs: bool = False,
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
        rounded_inputs: Whether the consumer's inputs are rounded with one range for each call.

    Raises:
        PruningError: Weights are not finite.
    """
    check_finite(layers, unit.name)
    if keep == unit.groups:
        return PrunedUnit(kept=tuple(range(unit.groups)), layers=dict(layers))
    kept = sorted(order[unit.groups - keep :])
    columns = _columns(unit)[kept].flatten()
    found: dict[str, LayerWeights] = {}
    if keep:
        for producer in unit.producers:
            rows = torch.tensor(producer.rows(kept, unit.groups))
            dense = layers[producer.layer]
            bias = None if dense.bias_O is None else dense.bias_O[rows]
            found[producer.layer] = LayerWeights(weight_OK=dense.weight_OK[rows], bias_O=bias)
    found[unit.consumer] = cut_consumer(layers[unit.consumer], columns, moments, rounded_inputs=rounded_inputs)
    _check_fits({unit.consumer: found[unit.consumer]}, unit)
    return PrunedUnit(kept=tuple(kept), layers=found)


def check_finite(layers: Mapping[str, LayerWeights], unit: str) -> None:
    """Check weights and biases.

    Raises:
        PruningError: NaN or infinity among them.
    """
    for name, layer in layers.items():
        parts = (layer.weight_OK,) if layer.bias_O is None else (layer.weight_OK, layer.bias_O)
        if not all(bool(part.isfinite().all()) for part in parts):
            raise PruningError(
                f"weights must be finite; got NaN or infinity in {name} (unit {unit}); repair the model, or exclude "
                "the unit"
            )


def cut_consumer(
    dense: LayerWeights, columns: Tensor, moments: Moments | None, *, rounded_inputs: bool = False
) -> LayerWeights:
    """Keep some columns of a layer and solve them and its bias again; without moments they stay as they are.

    Args:
        dense: The dense layer.
        columns: Columns that stay, ascending; none at all leaves the bias, as the layer's mean output.
        moments: Second moments of its input.
        rounded_inputs: Whether its inputs are rounded with one range for each call: what stays is solved so that it
            does not enlarge the rounding errors more than it is worth.
    """
    if moments is None:
        return LayerWeights(weight_OK=dense.weight_OK[:, columns], bias_O=dense.bias_O)
    weight_OK, gram_FKK = solvable(dense, moments)
    constant = torch.arange(dense.weight_OK.shape[1], weight_OK.shape[1])
    kept = torch.cat([columns, constant]).to(gram_FKK.device)
    if not len(kept):
        return LayerWeights(weight_OK=dense.weight_OK[:, columns], bias_O=None)
    noise_K = None
    if rounded_inputs:
        noise_K = torch.zeros_like(gram_FKK[0, 0])
        noise_K[: dense.weight_OK.shape[1]] = moments.rounding
    ridge = choose_ridge(weight_OK, gram_FKK, kept, noise_K=noise_K)
    solved_OS = least_squares(weight_OK, gram_FKK.sum(0), kept, ridge=ridge, noise_K=noise_K).to(dense.weight_OK)
    width = len(columns)
    bias_O = None if dense.bias_O is None else solved_OS[:, width].contiguous()
    return LayerWeights(weight_OK=solved_OS[:, :width].contiguous(), bias_O=bias_O)


def solvable(layer: LayerWeights, moments: Moments) -> tuple[Tensor, Tensor]:
    """Weight and Gram matrices to solve for, on the latter's device; a bias is one more column of the weight."""
    weight_OK = layer.weight_OK.to(moments.gram_FKK)
    if layer.bias_O is None:
        return weight_OK, moments.gram_FKK[:, :-1, :-1]
    return torch.cat([weight_OK, layer.bias_O.to(weight_OK)[:, None]], dim=1), moments.gram_FKK


def _check_fits(layers: Mapping[str, LayerWeights], unit: Unit) -> None:
    for name, layer in layers.items():
        parts = (layer.weight_OK,) if layer.bias_O is None else (layer.weight_OK, layer.bias_O)
        if not all(bool(part.isfinite().all()) for part in parts):
            raise PruningError(
                f"solved weights must fit into {layer.weight_OK.dtype}; got infinity in {name} (unit {unit.name}); "
                "load the model in bfloat16 or float32, or exclude the unit"
            )


def _columns(unit: Unit) -> Tensor:
    """Input columns of the consumer by group, shape (groups, columns_per_group)."""
    return torch.arange(unit.groups * unit.columns_per_group).view(unit.groups, unit.columns_per_group)
