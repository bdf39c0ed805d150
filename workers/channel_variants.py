"""Variants of units of channels: the layers that read them, cut and solved on columns, in every format.

A layer between two units depends on both: its columns on how many channels of the one stay, its format on the other.
So the variant of a unit under a choice holds the layers that read its channels when `choice.keep` of them stay, in the
format of the choice, which is that of the unit whose channels they make. What is done for each output channel by itself
commutes with cutting rows, and rows are cut at assembly.

Shape letters: O output features, K columns, C channels, R rows of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit
from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Choice
from workers.calibrate import Calibration, Moments
from workers.calibrate_channel_gradients import collect_channel_fisher, collect_channel_taylor
from workers.calibrate_channels import ChannelStatistics, collect_channels
from workers.pruning.channels import Reader, channel_order
from workers.pruning.groups import check_finite, cut_consumer
from workers.pruning.saliency import LayerWeights, Saliency
from workers.quantization.calibrators import RangeMethod
from workers.quantization.codes import round_to_nearest
from workers.quantization.gptq import gptq
from workers.variant_store import Variant

_BLIND_RANGE = (-1.0, 1.0)
"""Static ranges where there is no calibration; times do not depend on them."""


class ChannelVariantMaker:
    """Compresses the units of channels of one model.

    Args:
        model: The dense model, folded; read now and never again.
        units: Units of channels.
        calibration: The calibration data; None compresses without data.
        base_format: Format of layers that produce no unit.
        saliency: By what channels are ranked.
        update: Whether layers are solved again after pruning.
        use_gptq: Whether weights are rounded by GPTQ; else to nearest.
        use_fisher: Whether the Hessian saliency weighs errors by how much they move the model's answers.
        range_method: How static ranges of activations are chosen.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[ChannelUnit],
        calibration: Calibration | None,
        *,
        base_format: str = "fp32",
        saliency: Saliency,
        update: bool,
        use_gptq: bool,
        use_fisher: bool = True,
        range_method: RangeMethod = RangeMethod.MIN_MAX,
    ) -> None:
        self._units, self._calibration, self._base_format = units, calibration, base_format
        self._saliency, self._update, self._use_gptq = saliency, update, use_gptq
        self._use_fisher, self._range_method = use_fisher, range_method
        self._layers = {layer.layer: layer for unit in units for layer in unit.channel_layers}
        self._dense = {name: _flatten(model.get_submodule(name)) for name in self._layers}
        self._orders: dict[str, tuple[int, ...]] = {}
        self._seen: ChannelStatistics | None = None
        self._gradients: dict[str, Tensor] = {}
        self._last_cut: tuple[tuple[str, int], dict[str, LayerWeights]] | None = None

    def make(self, unit: ChannelUnit, choice: Choice) -> Variant:
        """Cut and solve the layers that read a unit's channels, then quantize them.

        Returns:
            Tensors by "<layer>/<part>"; parts are weight, or codes and scale, bias, and for a static format input_range
            (2,) and output_range (2, O): lows, then highs. "<unit>/kept" holds the channels that stay, and
            "<module>/range" the range behind a residual sum.
        """
        kept = self._kept(unit, choice.keep)
        found: dict[str, Tensor] = {f"{unit.name}/kept": kept}
        for name, weights in self._cut(unit, choice.keep).items():
            layer = self._layers[name]
            number_format = choice.format if layer.rows is not None else self._base_format
            for part, tensor in self._store(layer, weights, number_format, kept).items():
                found[f"{name}/{part}"] = tensor
        if _is_static(choice.format):
            for total in unit.sums:
                if total.activation_module is not None:
                    range_2C = self._output_range(total.activation_module, unit.groups)[:, kept]
                    found[f"{total.activation_module}/range"] = _whole(range_2C)
        return found

    def _statistics(self) -> ChannelStatistics | None:
        if self._seen is None and self._calibration is not None:
            calibration = self._calibration
            # One broken layer gives all behind it inputs that are broken too: it is named before they are.
            for name, weights in self._dense.items():
                check_finite({name: weights}, self._layers[name].home)
            self._seen = collect_channels(
                calibration.model(), self._units, calibration.calls, method=self._range_method
            )
        return self._seen

    def _moments(self, layer: str) -> Moments | None:
        seen = self._statistics()
        return None if seen is None else seen.moments.get(layer)

    def _kept(self, unit: ChannelUnit, keep: int) -> Tensor:
        if keep == unit.groups:
            return torch.arange(keep)
        if unit.name not in self._orders:
            self._orders[unit.name] = self._order(unit)
        return torch.tensor(sorted(self._orders[unit.name][unit.groups - keep :]), dtype=torch.long)

    def _order(self, unit: ChannelUnit) -> tuple[int, ...]:
        layers = self._layers.values()
        readers = [
            Reader(
                weights=self._dense[layer.layer],
                columns_per_channel=layer.columns_per_channel,
                moments=self._moments(layer.layer),
                fisher_O=self._fisher(layer.layer),
            )
            for layer in layers
            if _reads(layer, unit)
        ]
        writers = [self._dense[layer.layer] for layer in layers if layer.rows == unit.name]
        taylor_C = self._taylor(unit.name)
        return channel_order(unit.groups, readers, writers, saliency=self._saliency, taylor_C=taylor_C)

    def _fisher(self, layer: str) -> Tensor | None:
        if not self._use_fisher or self._saliency is not Saliency.HESSIAN or self._calibration is None:
            return None
        if not self._gradients:
            calibration = self._calibration
            self._gradients = collect_channel_fisher(calibration.model(), self._units, calibration.calls)
        return self._gradients[layer]

    def _taylor(self, unit: str) -> Tensor | None:
        if self._saliency is not Saliency.TAYLOR or self._calibration is None:
            return None
        if not self._gradients:
            calibration = self._calibration
            self._gradients = collect_channel_taylor(calibration.model(), self._units, calibration.calls)
        return self._gradients[unit]

    def _cut(self, unit: ChannelUnit, keep: int) -> dict[str, LayerWeights]:
        """Layers at home with the unit, remembering the last result: formats of one keep are asked for in turn."""
        if self._last_cut is not None and self._last_cut[0] == (unit.name, keep):
            return self._last_cut[1]
        at_home = {name: self._dense[name] for name, layer in self._layers.items() if layer.home == unit.name}
        check_finite(at_home, unit.name)
        kept = self._kept(unit, keep)
        found = dict(at_home) if keep == unit.groups else {}
        for name, dense in at_home.items() if keep < unit.groups else ():
            layer = self._layers[name]
            if _reads(layer, unit):
                size = layer.columns_per_channel
                columns = (kept[:, None] * size + torch.arange(size)).flatten()
                found[name] = cut_consumer(dense, columns, self._moments(name) if self._update else None)
            else:
                found[name] = _rows(dense, kept) if layer.columns == unit.name else dense
        self._last_cut = ((unit.name, keep), found)
        return found

    def _store(self, layer: ChannelLayer, weights: LayerWeights, format_name: str, kept: Tensor) -> dict[str, Tensor]:
        found = {} if weights.bias_O is None else {"bias": weights.bias_O}
        if weights.weight_OK.shape[1] == 0:
            return found
        target = FORMATS.get(format_name)
        if not target.is_quantized:
            return {**found, "weight": weights.weight_OK}
        moments = self._moments(layer.layer) if self._use_gptq else None
        if moments is None:
            codes = round_to_nearest(weights.weight_OK, target)
        else:
            columns = torch.arange(len(moments.gram_FKK[0]) - 1).view(-1, layer.columns_per_channel)
            columns = (columns[kept] if layer.columns is not None else columns).flatten()
            codes = gptq(weights.weight_OK, moments.gram_KK[columns][:, columns], target)
        found |= {"codes": codes.codes_OK, "scale": codes.scale_ON[:, 0].contiguous()}
        output_2O = self._output_range(layer.layer, layer.out_channels)
        depthwise = layer.kind is ChannelLayerKind.DEPTHWISE
        found["output_range"] = output_2O[:, kept] if depthwise else output_2O
        found["input_range"] = self._input_range(layer, kept)
        return found

    def _input_range(self, layer: ChannelLayer, kept: Tensor) -> Tensor:
        seen = self._statistics()
        if seen is None:
            return torch.tensor(_BLIND_RANGE)
        range_2C = seen.inputs[layer.layer].range_2C
        return _whole(range_2C[:, kept] if layer.columns is not None else range_2C)

    def _output_range(self, name: str, channels: int) -> Tensor:
        seen = self._statistics()
        if seen is None:
            return torch.tensor(_BLIND_RANGE)[:, None].repeat(1, channels)
        return seen.outputs[name].range_2C


def _reads(layer: ChannelLayer, unit: ChannelUnit) -> bool:
    return layer.columns == unit.name and layer.kind is not ChannelLayerKind.DEPTHWISE


def _rows(layer: LayerWeights, kept: Tensor) -> LayerWeights:
    bias_O = None if layer.bias_O is None else layer.bias_O[kept]
    return LayerWeights(weight_OK=layer.weight_OK[kept], bias_O=bias_O)


def _whole(range_2C: Tensor) -> Tensor:
    """Range of a map from those of its channels, shape (2,); (0, 0) of no channels."""
    if range_2C.shape[1] == 0:
        return torch.zeros(2)
    return torch.stack([range_2C[0].min(), range_2C[1].max()])


def _flatten(module: nn.Module) -> LayerWeights:
    assert isinstance(module, nn.Conv2d | nn.Linear), module
    bias_O = None if module.bias is None else module.bias.detach()
    return LayerWeights(weight_OK=module.weight.detach().flatten(1), bias_O=bias_O)


def _is_static(format_name: str) -> bool:
    return FORMATS.get(format_name).activation is ActivationPrecision.INT8_STATIC
