"""One pass over the calibration examples for convolutions: moments of input patches, and ranges of feature maps.

Shape letters: B batch, C channels, H height, W width, P places, K columns of the flattened kernel, T patches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit
from workers.calibrate import FOLDS, CalibrationError, Moments
from workers.quantization.calibrators import Histogram, RangeMethod, choose_range

MIN_PATCHES = 2**14
PATCHES_PER_COLUMN = 16
"""Patches that are taken into account for each column of a kernel, at least `MIN_PATCHES`; with more, some places of
each example are drawn."""
PATCH_VALUES = 2**24
"""Values of patches that are held at once."""

_CLAMPS = {"relu": (0.0, float("inf")), "relu6": (0.0, 6.0)}


class ChannelRange:
    """Smallest and largest value of each channel of a feature map, within the range chosen for the whole map.

    Args:
        activation: A clamp behind the map; values are taken after it.
        method: How the whole map's range is chosen.
    """

    def __init__(self, activation: str | None = None, method: RangeMethod = RangeMethod.MIN_MAX) -> None:
        self._clamp = _CLAMPS.get(activation or "")
        self._method, self._histogram = method, Histogram()
        self._low_C, self._high_C = torch.empty(0), torch.empty(0)

    def add(self, map_BCHW: Tensor) -> None:
        """Widen by the values of a batch; shape (B, C) or (B, C, H, W)."""
        values_BCP = map_BCHW.reshape(*map_BCHW.shape[:2], -1)
        if self._clamp is not None:
            values_BCP = values_BCP.clamp(*self._clamp)
        low_C, high_C = values_BCP.amin((0, 2)), values_BCP.amax((0, 2))
        self._low_C = low_C if self._low_C.numel() == 0 else torch.minimum(self._low_C, low_C)
        self._high_C = high_C if self._high_C.numel() == 0 else torch.maximum(self._high_C, high_C)
        if self._method is not RangeMethod.MIN_MAX and self.is_finite:
            self._histogram.add(values_BCP)

    @property
    def is_finite(self) -> bool:
        """Whether all values are."""
        return bool(self._low_C.isfinite().all()) and bool(self._high_C.isfinite().all())

    @property
    def range_2C(self) -> Tensor:
        """Lows and highs by channel."""
        found_2C = torch.stack([self._low_C, self._high_C])
        if self._method is RangeMethod.MIN_MAX:
            return found_2C
        whole = choose_range(self._histogram, self._method)
        return found_2C.clamp(whole.low, whole.high)


class ChannelStatistics:
    """What is known of the inputs and outputs of layers between channels.

    Attributes:
        method: How the ranges of whole maps are chosen.
        moments: Moments of input patches by layer; none for depthwise layers.
        inputs: Ranges of inputs by layer.
        outputs: Ranges by layer of what comes out of it and its clamp, and by activation module behind a sum.
    """

    def __init__(self, method: RangeMethod) -> None:
        self.method = method
        self.moments: dict[str, Moments] = {}
        self.inputs: dict[str, ChannelRange] = {}
        self.outputs: dict[str, ChannelRange] = {}


def collect_channels(
    model: nn.Module,
    units: Sequence[ChannelUnit],
    calls: Sequence[StackedCalls],
    *,
    method: RangeMethod = RangeMethod.MIN_MAX,
    seed: int = 0,
) -> ChannelStatistics:
    """Run the dense model over the calibration examples, once for all layers between channels.

    Args:
        model: The dense model, folded.
        units: Its units.
        calls: The calibration split.
        method: How the ranges of whole maps are chosen.
        seed: Seed of the places that are drawn where there are many.

    Raises:
        CalibrationError: A feature map is not finite.
    """
    found = ChannelStatistics(method)
    sums: dict[str, _PatchSum] = {}
    examples = sum(len(call.rows) for call in calls)
    generator = torch.Generator().manual_seed(seed)
    with ExitStack() as stack, torch.inference_mode():
        for unit in units:
            for layer in unit.channel_layers:
                module = model.get_submodule(layer.layer)
                if layer.kind is not ChannelLayerKind.DEPTHWISE:
                    sums[layer.layer] = _PatchSum(layer, module, examples, generator)
                watch = partial(_watch_layer, layer, sums.get(layer.layer), found)
                stack.callback(module.register_forward_hook(watch).remove)
            for total in unit.sums:
                if total.activation_module is not None:
                    behind = found.outputs.setdefault(total.activation_module, ChannelRange(method=method))
                    hook = model.get_submodule(total.activation_module).register_forward_hook(partial(_watch, behind))
                    stack.callback(hook.remove)
        for call in calls:
            model(**call.inputs)
    for unit in units:
        for layer in unit.channel_layers:
            _check(unit, layer, found)
    found.moments = {name: Moments(gram_FKK=total.gram_FKK) for name, total in sums.items()}
    return found


def _check(unit: ChannelUnit, layer: ChannelLayer, found: ChannelStatistics) -> None:
    if not (found.inputs[layer.layer].is_finite and found.outputs[layer.layer].is_finite):
        raise CalibrationError(
            f"inputs and outputs of {layer.layer} (unit {unit.name}) must be finite; got NaN or infinity on the "
            "calibration data; check the model's weights and the data"
        )


def _watch(total: ChannelRange, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
    total.add(output)


def _watch_layer(
    layer: ChannelLayer,
    patches: _PatchSum | None,
    found: ChannelStatistics,
    _module: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    found.inputs.setdefault(layer.layer, ChannelRange(method=found.method)).add(inputs[0])
    found.outputs.setdefault(layer.layer, ChannelRange(layer.activation, found.method)).add(output)
    if patches is not None:
        patches.add_batch(inputs[0])


class _PatchSum:
    """Sums outer products of flattened input patches, a constant 1 appended, examples to the folds in turn."""

    def __init__(self, layer: ChannelLayer, module: nn.Module, examples: int, generator: torch.Generator) -> None:
        self._columns = layer.in_channels * layer.columns_per_channel
        self._module, self._generator, self._examples = module, generator, 0
        wanted = max(MIN_PATCHES, PATCHES_PER_COLUMN * self._columns)
        self._places = max(1, -(-wanted // max(1, examples)))
        self.gram_FKK = torch.zeros(FOLDS, self._columns + 1, self._columns + 1, dtype=torch.float64)

    def add_batch(self, input: Tensor) -> None:
        """Add inputs of shape (B, C, H, W), or (B, C) of a linear layer."""
        for offset in range(min(FOLDS, len(input))):
            fold = (self._examples + offset) % FOLDS
            for patches_TK in self._patches(input[offset::FOLDS]):
                self._add(patches_TK, fold)
        self._examples += len(input)

    def _patches(self, part: Tensor) -> Iterator[Tensor]:
        module = self._module
        if not isinstance(module, nn.Conv2d):
            yield part
            return
        height, width = part.shape[2:]
        at_once = max(1, PATCH_VALUES // (self._columns * height * width))
        for start in range(0, len(part), at_once):
            patches_BKP = nn.functional.unfold(
                part[start : start + at_once],
                module.kernel_size,
                dilation=module.dilation,
                padding=module.padding,  # type: ignore[arg-type]
                stride=module.stride,
            )
            if patches_BKP.shape[2] > self._places:
                drawn = torch.randperm(patches_BKP.shape[2], generator=self._generator)[: self._places]
                patches_BKP = patches_BKP[:, :, drawn]
            yield patches_BKP.transpose(1, 2).flatten(0, 1)

    def _add(self, patches_TK: Tensor, fold: int) -> None:
        ones_T1 = torch.ones(len(patches_TK), 1, dtype=torch.float64)
        augmented_TK = torch.cat([patches_TK.double(), ones_T1], dim=1)
        gram_KK = self.gram_FKK[fold]
        torch.addmm(gram_KK, augmented_TK.T, augmented_TK, out=gram_KK)
