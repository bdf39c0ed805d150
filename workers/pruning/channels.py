"""Order in which the channels of a unit are removed: every layer that reads them has a say.

Shape letters: O output features, K columns, G channels, R columns of a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.calibrate import Moments
from workers.pruning.groups import PruningError, solvable
from workers.pruning.hessian_ops import FISHER_SHARE, shared_removal
from workers.pruning.saliency import LayerWeights, Saliency, activation_scores

_ORDER_RIDGE = 1e-4
_POWERS = {Saliency.MAGNITUDE_L1: 1, Saliency.MAGNITUDE_L2: 2}
_SCORINGS = 512
"""Removal costs are computed afresh at least this often, or after each channel where a unit has fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A layer that reads the channels.

    Attributes:
        weights: Its dense weights, flattened.
        columns_per_channel: Columns of a channel.
        moments: Second moments of its input, for the Hessian and the activation saliency.
        fisher_O: How much squared errors of its outputs matter, comparable between readers, for the Hessian saliency.
    """

    weights: LayerWeights
    columns_per_channel: int
    moments: Moments | None = None
    fisher_O: Tensor | None = None


def channel_order(
    channels: int,
    readers: Sequence[Reader],
    writers: Sequence[LayerWeights],
    *,
    saliency: Saliency,
    taylor_C: Tensor | None = None,
) -> tuple[int, ...]:
    """Order all channels of a unit, the first to go first.

    The Hessian saliency sums the readers' squared errors, weighed by how much they move the model's answers.

    Args:
        channels: How many there are.
        readers: Layers whose columns they are.
        writers: Layers whose rows they are, for the magnitude.
        saliency: By what channels are ranked.
        taylor_C: First-order changes of the loss, needed by the Taylor saliency.

    Raises:
        PruningError: The saliency lacks what it needs.

    Reference: Kurtic et al., ZipLM, 2302.04089, equations 2 and 3, for one layer.
    """
    seen = [reader for reader in readers if reader.moments is not None]
    if saliency is Saliency.HESSIAN and seen:
        problems = [_problem(channels, reader) for reader in seen]
        return tuple(shared_removal(problems, ridge=_ORDER_RIDGE, at_once=max(1, channels // _SCORINGS)))
    if saliency is Saliency.ACTIVATION and seen:
        scores_C = torch.stack([_activation(channels, reader) for reader in seen]).sum(0)
    elif saliency is Saliency.TAYLOR and taylor_C is not None:
        scores_C = taylor_C
    elif saliency in _POWERS:
        scores_C = _magnitude(channels, readers, writers, power=_POWERS[saliency])
    else:
        raise PruningError(
            f"saliency {saliency.value!r} looks at calibration data; got none; give some, or take one of "
            f"{', '.join(_POWERS)}"
        )
    return tuple(scores_C.argsort(stable=True).tolist())


def _activation(channels: int, reader: Reader) -> Tensor:
    assert reader.moments is not None
    gram_KK = reader.moments.gram_KK
    return activation_scores(reader.weights.weight_OK, gram_KK[:-1, :-1], groups=channels) / float(gram_KK[-1, -1])


def _magnitude(channels: int, readers: Sequence[Reader], writers: Sequence[LayerWeights], *, power: int) -> Tensor:
    found_C = torch.zeros(channels, dtype=torch.float64)
    for writer in writers:
        found_C += (writer.weight_OK.double().abs() ** power).sum(1)
    for reader in readers:
        found_C += (reader.weights.weight_OK.double().abs() ** power).sum(0).view(channels, -1).sum(1)
    return found_C


def _problem(channels: int, reader: Reader) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, Gram matrix of a place and columns by channel, so that squared errors of all readers can be added up."""
    assert reader.moments is not None
    weight_OK, gram_FKK = solvable(reader.weights, reader.moments)
    if reader.fisher_O is not None:
        mean = reader.fisher_O.mean()
        # What a sample of examples never asked for may matter to others.
        weight_OK = weight_OK * (FISHER_SHARE * reader.fisher_O + (1 - FISHER_SHARE) * mean).sqrt()[:, None]
    index_GR = torch.arange(channels * reader.columns_per_channel).view(channels, reader.columns_per_channel)
    return weight_OK, gram_FKK.sum(0) / max(1, reader.moments.tokens), index_GR
