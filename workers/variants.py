"""Variants: every unit under every choice, made once and stored under what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from search_spaces.formats import FORMATS, Format
from search_spaces.policy import Choice
from search_spaces.units import Unit
from workers.calibrate import Calibration, Moments
from workers.pruning import LayerWeights, PrunedUnit, Saliency, prune_unit, removal_order
from workers.quantization.codes import Codes, round_to_nearest
from workers.quantization.gptq import gptq

METHOD_VERSION = 1
"""Raised whenever a change below changes a tensor, so that stored variants of before are made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a unit is compressed.

    Attributes:
        saliency: By what groups are ranked.
        update: Whether the output projection is solved again after pruning.
        gptq: Whether weights are rounded by GPTQ; else to nearest.
    """

    saliency: Saliency = Saliency.HESSIAN
    update: bool = True
    gptq: bool = True


Variant = Mapping[str, Tensor]
"""Tensors of a compressed unit, named "<layer>/<part>"; parts are weight, or codes, scale and zeros, and bias."""


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
        self._dense = {unit.name: _read_layers(model, unit) for unit in units}
        self._calibration = calibration
        blind = Method(saliency=Saliency.MAGNITUDE, update=False, gptq=False)
        self._method = method or (blind if calibration is None else Method())
        self._model_digest = _digest_model(model, self._identity)
        self._orders: dict[str, tuple[int, ...]] = {}
        self._last_pruned: tuple[tuple[str, int], PrunedUnit] | None = None

    @property
    def model_digest(self) -> str:
        """Identity of all weights, the calibration data and the method."""
        return self._model_digest

    def make(self, unit: Unit, choice: Choice) -> Variant:
        """Prune, then quantize what stays."""
        pruned = self._prune(unit, choice.keep)
        target = FORMATS.get(choice.format)
        kept = torch.tensor(pruned.kept, dtype=torch.long)
        columns = (kept[:, None] * unit.columns_per_group + torch.arange(unit.columns_per_group)).flatten()
        found: dict[str, Tensor] = {}
        for name, layer in pruned.layers.items():
            consumed = columns if name == unit.consumer else None
            for part, tensor in self._store(name, layer, target, consumed).items():
                found[f"{name}/{part}"] = tensor
        return found

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
        return [data, METHOD_VERSION, self._method.saliency, self._method.update, self._method.gptq]

    def _prune(self, unit: Unit, keep: int) -> PrunedUnit:
        """Prune, remembering the last result: formats of one keep are usually asked for one after the other."""
        if self._last_pruned is not None and self._last_pruned[0] == (unit.name, keep):
            return self._last_pruned[1]
        layers, moments = self._dense[unit.name], self._moments(unit.consumer)
        if unit.name not in self._orders and keep < unit.groups:
            self._orders[unit.name] = removal_order(unit, layers, moments, saliency=self._method.saliency)
        order = self._orders.get(unit.name, ())
        pruned = prune_unit(unit, layers, order, keep, moments if self._method.update else None)
        self._last_pruned = ((unit.name, keep), pruned)
        return pruned

    def _moments(self, layer: str) -> Moments | None:
        return None if self._calibration is None else self._calibration.moments(layer)

    def _store(self, name: str, layer: LayerWeights, target: Format, columns: Tensor | None) -> dict[str, Tensor]:
        found = {} if layer.bias_O is None else {"bias": layer.bias_O}
        if not target.is_quantized or layer.weight_OK.shape[1] == 0:
            return {**found, "weight": layer.weight_OK}
        codes = self._quantize(name, layer.weight_OK, target, columns)
        found |= {"codes": codes.codes_OK, "scale": codes.scale_ON}
        return found if codes.zeros_ON is None else {**found, "zeros": codes.zeros_ON}

    def _quantize(self, name: str, weight_OK: Tensor, target: Format, columns: Tensor | None) -> Codes:
        moments = self._moments(name)
        if moments is None or not self._method.gptq:
            return round_to_nearest(weight_OK, target)
        gram_KK = moments.gram_KK[:-1, :-1]
        if columns is not None:
            gram_KK = gram_KK[columns][:, columns]
        return gptq(weight_OK, gram_KK, target)


def _digest_model(model: nn.Module, identity: list[object]) -> str:
    config: Any = getattr(model, "config", None)
    digest = hashlib.sha256(json.dumps([identity, None if config is None else config.to_dict()], default=str).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_layers(model: nn.Module, unit: Unit) -> dict[str, LayerWeights]:
    found = {}
    for name in unit.layers:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear), name
        bias_O = None if linear.bias is None else linear.bias.detach()
        found[name] = LayerWeights(weight_OK=linear.weight.detach(), bias_O=bias_O)
    return found


class VariantStore:
    """Variants on disk, one safetensors file each, written whole or not at all.

    Args:
        folder: Made where it does not exist; several processes may share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, maker: VariantMaker, unit: Unit, choice: Choice) -> bool:
        """Whether a file of that variant exists."""
        return self._path(maker, unit, choice).exists()

    def get_or_make(self, maker: VariantMaker, unit: Unit, choice: Choice) -> Variant:
        """Read a variant, or make and store it. A file that can't be read, or was altered, is made again."""
        path = self._path(maker, unit, choice)
        found = _read(path)
        if found is None:
            found = {name: tensor.contiguous() for name, tensor in maker.make(unit, choice).items()}
            _write(path, found)
        return found

    def _path(self, maker: VariantMaker, unit: Unit, choice: Choice) -> Path:
        return self._folder / f"{maker.key(unit, choice)}.safetensors"


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    body, checksum = data[:-32], data[-32:]
    if hashlib.sha256(body).digest() != checksum:
        return None
    try:
        return load(body)
    except SafetensorError:
        return None


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    body = save(dict(tensors))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.write(hashlib.sha256(body).digest())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
