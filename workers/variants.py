"""Variants: every unit under every choice, made from the dense model and its calibration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.channels import ChannelUnit
from search_spaces.formats import FORMATS, ActivationPrecision, Format, LayerType
from search_spaces.policy import Choice
from search_spaces.units import Unit, UnitKind
from workers.calibrate import Calibration, Moments
from workers.channel_variants import ChannelVariantMaker
from workers.pruning import LayerWeights, PrunedUnit, Saliency, check_finite, prune_unit, removal_order
from workers.quantization.calibrators import RangeMethod
from workers.quantization.codes import Codes, round_to_nearest
from workers.quantization.float_linear import FLOAT_TYPES
from workers.quantization.gptq import gptq
from workers.variant_store import Variant, tensor_bytes

METHOD_VERSION = 3
"""Raised whenever a change below changes a tensor, so that stored variants of before are made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a unit is compressed.

    Attributes:
        saliency: By what groups are ranked.
        update: Whether the output projection is solved again after pruning.
        fisher: Whether the Hessian saliency weighs errors of feed-forward outputs by how much they move the model's
            answers, which takes a backward pass over the calibration data; else all directions count alike, as they
            always do for the few heads of attention, where it made no difference.
        gptq: Whether weights are rounded by GPTQ; else to nearest.
        ranges: How static ranges of activations are chosen.
    """

    saliency: Saliency = Saliency.HESSIAN
    fisher: bool = True
    update: bool = True
    gptq: bool = True
    ranges: RangeMethod = RangeMethod.MIN_MAX


class VariantMaker:
    """Compresses units of one model with one calibration.

    Args:
        model: The dense model, read now and never again, so that its layers may be replaced afterwards.
        units: Units of the model.
        calibration: Second moments, summed when the first variant needs them; None compresses without data (for
            shapes and timing alone).
        method: How; None takes the best that the calibration allows.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        calibration: Calibration | None,
        method: Method | None = None,
    ) -> None:
        channel_units = [unit for unit in units if isinstance(unit, ChannelUnit)]
        self._dense = {unit.name: _read_layers(model, unit) for unit in units if not isinstance(unit, ChannelUnit)}
        self._calibration = calibration
        blind = Method(saliency=Saliency.MAGNITUDE_L2, update=False, gptq=False)
        self._method = method or (blind if calibration is None else Method())
        self._model_digest = _digest_model(model, self._identity)
        self._channels = ChannelVariantMaker(
            model,
            channel_units,
            calibration,
            saliency=self._method.saliency,
            update=self._method.update,
            use_gptq=self._method.gptq,
            use_fisher=self._method.fisher,
            range_method=self._method.ranges,
        )
        self._are_finite = False
        self._orders: dict[str, tuple[int, ...]] = {}
        self._last_pruned: tuple[tuple[str, int, bool], PrunedUnit] | None = None

    @property
    def model_digest(self) -> str:
        """Identity of all weights, the calibration data and the method."""
        return self._model_digest

    def make(self, unit: Unit, choice: Choice) -> Variant:
        """Prune, then quantize what stays.

        Raises:
            PruningError: Weights of the unit, or of one that runs before it, are not finite.
            CalibrationError: The calibration data gives inputs that are not finite.
        """
        if isinstance(unit, ChannelUnit):
            return self._channels.make(unit, choice)
        if unit.kind is UnitKind.EMBEDDING:
            return self._make_table(unit, choice)
        target = FORMATS.get(choice.format)
        pruned = self._prune(unit, choice.keep, target)
        kept = torch.tensor(pruned.kept, dtype=torch.long)
        columns = (kept[:, None] * unit.columns_per_group + torch.arange(unit.columns_per_group)).flatten()
        found: dict[str, Tensor] = {}
        for name, layer in pruned.layers.items():
            consumed = columns if name == unit.consumer else None
            for part, tensor in self._store(name, layer, target, consumed).items():
                found[f"{name}/{part}"] = tensor
        if unit.selection is not None and choice.keep:
            found[f"{unit.selection}/kept"] = kept
        return found

    def _make_table(self, unit: Unit, choice: Choice) -> Variant:
        """Quantize an embedding table row by row; no calibration data tells which rows matter."""
        layers = self._dense[unit.name]
        check_finite(layers, unit.name)
        parts = self._store(unit.consumer, layers[unit.consumer], FORMATS.get(choice.format), None)
        return {f"{unit.consumer}/{part}": tensor for part, tensor in parts.items()}

    def key(self, unit: Unit, choice: Choice) -> str:
        """Identity of a variant: weights, calibration data, method with its version, unit and choice.

        All weights of the model count, as those before the unit decide what its inputs are.
        """
        parts = [self._model_digest, unit.name, choice.keep, repr(FORMATS.get(choice.format))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def _identity(self) -> list[object]:
        """What variants depend on beside weights, unit and choice."""
        data = self._calibration.digest if self._calibration is not None else None
        method = self._method
        return [data, METHOD_VERSION, method.saliency, method.fisher, method.update, method.gptq, method.ranges]

    def _prune(self, unit: Unit, keep: int, target: Format) -> PrunedUnit:
        """Prune, remembering the last result: formats of one keep are usually asked for one after the other."""
        key = (unit.name, keep, _rounds_inputs(target))
        if self._last_pruned is not None and self._last_pruned[0] == key:
            return self._last_pruned[1]
        layers, moments = self._dense[unit.name], self._moments(unit.consumer)
        if unit.name not in self._orders and keep < unit.groups:
            self._orders[unit.name] = self._order(unit, moments)
        order = self._orders.get(unit.name, ())
        pruned = prune_unit(
            unit, layers, order, keep, moments if self._method.update else None, rounded_inputs=_rounds_inputs(target)
        )
        self._last_pruned = (key, pruned)
        return pruned

    def _order(self, unit: Unit, moments: Moments | None) -> tuple[int, ...]:
        saliency, data = self._method.saliency, self._calibration
        is_fisher = saliency is Saliency.HESSIAN and self._method.fisher and unit.kind is UnitKind.FEED_FORWARD
        return removal_order(
            unit,
            self._dense[unit.name],
            moments,
            saliency=saliency,
            fisher_OO=data.fisher(unit) if data is not None and is_fisher else None,
            taylor_G=data.taylor(unit) if data is not None and saliency is Saliency.TAYLOR else None,
        )

    def _moments(self, layer: str) -> Moments | None:
        if self._calibration is None:
            return None
        if not self._are_finite:
            # One broken unit gives all behind it inputs that are broken too: it is named before they are.
            for unit, layers in self._dense.items():
                check_finite(layers, unit)
            self._are_finite = True
        return self._calibration.moments(layer)

    def _store(self, name: str, layer: LayerWeights, target: Format, columns: Tensor | None) -> dict[str, Tensor]:
        found = {} if layer.bias_O is None else {"bias": layer.bias_O}
        if not target.is_quantized or layer.weight_OK.shape[1] == 0:
            return {**found, "weight": layer.weight_OK.to(FLOAT_TYPES.get(target.activation, torch.float32))}
        codes = self._quantize(name, layer.weight_OK, target, columns)
        found |= {"codes": codes.codes_OK, "scale": codes.scale_ON}
        return found if codes.zeros_ON is None else {**found, "zeros": codes.zeros_ON}

    def _quantize(self, name: str, weight_OK: Tensor, target: Format, columns: Tensor | None) -> Codes:
        moments = self._moments(name) if self._method.gptq and LayerType.LINEAR in target.layer_types else None
        if moments is None:
            return round_to_nearest(weight_OK, target)
        gram_KK = moments.gram_KK[:-1, :-1]
        if columns is not None:
            gram_KK = gram_KK[columns][:, columns]
        if _rounds_inputs(target):
            gram_KK = gram_KK + moments.rounding * torch.eye(len(gram_KK)).to(gram_KK)
        return gptq(weight_OK, gram_KK, target)


def _rounds_inputs(target: Format) -> bool:
    """Whether inputs are rounded with one range for each call, which calibration measures."""
    return target.activation is ActivationPrecision.INT8_PER_TENSOR


def _digest_model(model: nn.Module, identity: list[object]) -> str:
    config: Any = getattr(model, "config", None)
    digest = hashlib.sha256(json.dumps([identity, None if config is None else config.to_dict()], default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _read_layers(model: nn.Module, unit: Unit) -> dict[str, LayerWeights]:
    found = {}
    for name in unit.layers:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Embedding), name
        bias = getattr(layer, "bias", None)
        found[name] = LayerWeights(weight_OK=layer.weight.detach(), bias_O=None if bias is None else bias.detach())
    return found
