"""One pass over the calibration examples: second moments of every unit's inputs.

Shape letters: B batch, S sequence, T tokens, K input features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.units import Unit

FOLDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Second moments of a layer's input, with a constant 1 appended as last feature.

    The constant makes the bias one more column of the weight, so that least squares solves it as well.

    Attributes:
        gram_FKK: For each fold of the examples the sum of outer products, float64, shape (FOLDS, K + 1, K + 1).
            Folds allow cross-validation of the ridge.
    """

    gram_FKK: Tensor

    @property
    def gram_KK(self) -> Tensor:
        """Sum over all folds, shape (K + 1, K + 1)."""
        return self.gram_FKK.sum(0)

    @property
    def tokens(self) -> int:
        """Tokens seen."""
        return int(self.gram_FKK[:, -1, -1].sum())

    @property
    def mean_K(self) -> Tensor:
        """Mean input, shape (K,)."""
        gram_KK = self.gram_KK
        return gram_KK[:-1, -1] / gram_KK[-1, -1]


class CalibrationError(ValueError):
    """The calibration data gave values that are not finite."""


class Calibration:
    """What compression knows about the data: moments by layer, summed in one pass when they are first asked for.

    Args:
        units: Units whose layers are watched.
        calls: The calibration split as the target would run it; padding is left out by its attention mask.
        model: Gives the dense model when the pass is due.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        calls: Sequence[StackedCalls],
        model: Callable[[], nn.Module],
    ) -> None:
        self._model, self._units, self._calls = model, units, calls
        self._moments: dict[str, Moments] = {}
        digest = hashlib.sha256()
        for call in calls:
            for key in sorted(call.inputs):
                digest.update(call.inputs[key].numpy().tobytes())
        self.digest = digest.hexdigest()[:16]
        """Identity of the examples."""

    def moments(self, layer: str) -> Moments:
        """Second moments of a layer's input.

        Raises:
            CalibrationError: An input of a unit's layer is not finite.
        """
        if not self._moments:
            self._moments = collect_moments(self._model(), self._units, self._calls)
        return self._moments[layer]


def collect_moments(model: nn.Module, units: Sequence[Unit], calls: Sequence[StackedCalls]) -> dict[str, Moments]:
    """Run the dense model over the calibration examples and sum second moments for all units at once.

    Returns:
        Moments by layer name; producers of a unit share one entry, stored under each of their names.

    Raises:
        CalibrationError: An input of a unit's layer is not finite.
    """
    sums = {name: _Sum() for unit in units for name in (unit.producers[0].layer, unit.consumer)}
    mask: list[Tensor | None] = [None]
    with ExitStack() as stack, torch.inference_mode():
        for name, total in sums.items():
            handle = model.get_submodule(name).register_forward_pre_hook(partial(_watch, total, mask))
            stack.callback(handle.remove)
        for call in calls:
            mask[0] = call.inputs.get("attention_mask")
            model(**call.inputs)
    moments: dict[str, Moments] = {}
    for unit in units:
        for layer in unit.layers:
            total = sums[layer if layer == unit.consumer else unit.producers[0].layer]
            if not bool(total.gram_FKK.isfinite().all()):
                raise CalibrationError(
                    f"inputs of {layer} (unit {unit.name}) must be finite; got NaN or infinity on the calibration "
                    "data; check the model's weights and the data"
                )
            moments[layer] = Moments(gram_FKK=total.gram_FKK)
    return moments


class _Sum:
    def __init__(self) -> None:
        self.gram_FKK = torch.empty(0)
        self._examples = 0

    def add_batch(self, hidden: Tensor, mask_BS: Tensor | None) -> None:
        """Add inputs of shape (B, ..., K), examples to the folds in turn."""
        for offset in range(min(FOLDS, len(hidden))):
            part = hidden[offset::FOLDS]
            if mask_BS is not None:
                part = part[mask_BS[offset::FOLDS]]
            self._add(part.reshape(-1, hidden.shape[-1]), (self._examples + offset) % FOLDS)
        self._examples += len(hidden)

    def _add(self, input_TK: Tensor, fold: int) -> None:
        ones_T1 = torch.ones(input_TK.shape[0], 1, dtype=torch.float64, device=input_TK.device)
        augmented_TK = torch.cat([input_TK.double(), ones_T1], dim=1)
        if self.gram_FKK.numel() == 0:
            width = augmented_TK.shape[1]
            self.gram_FKK = torch.zeros(FOLDS, width, width, dtype=torch.float64, device=input_TK.device)
        gram_KK = self.gram_FKK[fold]
        torch.addmm(gram_KK, augmented_TK.T, augmented_TK, out=gram_KK)


def _watch(total: _Sum, mask: list[Tensor | None], _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    hidden = inputs[0]
    mask_BS = mask[0]
    has_mask = mask_BS is not None and hidden.shape[:2] == mask_BS.shape
    total.add_batch(hidden, mask_BS.bool() if mask_BS is not None and has_mask else None)
