"""Assembly of layers between channels: variants give their columns and formats, rows are cut here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from torch import Tensor, nn

from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit
from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Choice, Policy
from search_spaces.units import Unit
from workers.quantization.convolution import (
    ConstantMap,
    RoundedActivation,
    StaticInt8Convolution,
    StaticRange,
    float_convolution,
)
from workers.variant_store import Variant

_MODULES_KEPT = 1024
_VARIANTS_KEPT = 128
"""Every layer of a variant asks for it by itself."""


class ChannelAssembler:
    """Makes the layers between channels those of a policy.

    Args:
        model: The dense model; it is changed in place.
        units: Its units of channels.
        base_format: Format of layers that produce no unit.
        variant: Returns the tensors of a unit under a choice.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[ChannelUnit],
        base_format: str,
        variant: Callable[[Unit, Choice], Variant],
    ) -> None:
        self._model, self._base_format = model, base_format
        self._variant = lru_cache(maxsize=_VARIANTS_KEPT)(variant)
        self._units = {unit.name: unit for unit in units}
        self._layers = [layer for unit in units for layer in unit.channel_layers]
        self._dense = {name: model.get_submodule(name) for name in _places(units)}
        self._current = {layer.layer: self._dense_choices(layer) for layer in self._layers}
        self._formats = dict.fromkeys(self._units, base_format)
        self._keeps = {unit.name: unit.groups for unit in units}
        self._modules = lru_cache(maxsize=_MODULES_KEPT)(self._build)

    def apply(self, policy: Policy) -> None:
        """Swap the layers whose shape or format differs from the last policy's."""
        wanted = {layer.layer: self._choices(layer, policy) for layer in self._layers}
        changed = [layer for layer in self._layers if wanted[layer.layer] != self._current[layer.layer]]
        # A branch that was left out comes back whole before the layers inside it are placed.
        for layer in changed:
            if (branch := self._branch(layer)) is not None:
                self._model.set_submodule(branch, self._dense[branch])
        for layer in changed:
            for name, module in self._modules(layer, *wanted[layer.layer]).items():
                self._model.set_submodule(name, module)
        self._current = wanted
        for unit in self._units.values():
            self._round_sums(unit, policy[unit.name])

    def _choices(self, layer: ChannelLayer, policy: Policy) -> tuple[Choice | None, Choice | None]:
        """What the layer depends on: the choices of its rows and columns, their formats where these matter."""
        rows = None if layer.rows is None else policy[layer.rows]
        if layer.columns is None:
            return rows, None
        columns = policy[layer.columns]
        is_float = rows is None or not _is_static(rows.format)
        return rows, columns if is_float else Choice(columns.keep, self._base_format)

    def _dense_choices(self, layer: ChannelLayer) -> tuple[Choice | None, Choice | None]:
        rows, columns = (None if n is None else self._units[n] for n in (layer.rows, layer.columns))
        return (
            None if rows is None else Choice(rows.groups, self._base_format),
            None if columns is None else Choice(columns.groups, self._base_format),
        )

    def _branch(self, layer: ChannelLayer) -> str | None:
        """The branch that the layer ends, where one choice of its input leaves it out."""
        if layer.columns is None or layer.rows == layer.columns:
            return None
        branch = self._units[layer.columns].branch
        return branch.module if branch is not None and layer.layer.startswith(branch.module + ".") else None

    def _build(self, layer: ChannelLayer, rows: Choice | None, columns: Choice | None) -> Mapping[str, nn.Module]:
        if rows is not None and rows.keep == 0:
            return {}
        dense = self._dense[layer.layer]
        number_format = self._base_format if rows is None else rows.format
        found: dict[str, nn.Module] = {}
        if layer.activation_module is not None:
            static = _is_static(number_format)
            found[layer.activation_module] = nn.Identity() if static else self._dense[layer.activation_module]
        if (rows, columns) == self._dense_choices(layer):
            return {layer.layer: dense, **found}
        parts = self._parts(layer, rows, columns, number_format)
        if columns is not None and columns.keep == 0:
            branch = self._branch(layer)
            assert branch is not None, layer.layer
            first = self._dense[self._first_of(str(layer.columns))]
            assert isinstance(first, nn.Conv2d)
            return {branch: ConstantMap(parts["bias"], stride=int(first.stride[0]))}
        reads_codes = columns is not None and _is_static(columns.format)
        return {layer.layer: _module(layer, dense, parts, reads_codes=reads_codes), **found}

    def _first_of(self, unit: str) -> str:
        return next(layer.layer for layer in self._layers if layer.rows == unit)

    def _parts(
        self, layer: ChannelLayer, rows: Choice | None, columns: Choice | None, number_format: str
    ) -> dict[str, Tensor]:
        """Tensors of the layer with its rows cut."""
        home = self._units[layer.home]
        choice = columns or rows
        assert choice is not None, layer.layer
        tensors = self._variant(home, Choice(choice.keep, number_format if choice.keep else self._base_format))
        prefix = layer.layer + "/"
        parts = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        if rows is None or layer.rows == layer.columns or rows.keep == layer.out_channels:
            return parts
        kept = self._variant(self._units[str(layer.rows)], rows)[f"{layer.rows}/kept"]
        whole = {"input_range"}
        return {
            part: t if part in whole else (t[:, kept] if part == "output_range" else t[kept])
            for part, t in parts.items()
        }

    def _round_sums(self, unit: ChannelUnit, choice: Choice) -> None:
        if (self._keeps[unit.name], self._formats[unit.name]) == (choice.keep, choice.format):
            return
        tensors = self._variant(unit, choice) if _is_static(choice.format) and unit.sums else {}
        for total in unit.sums:
            if (name := total.activation_module) is not None:
                low_high = tensors.get(f"{name}/range")
                found = self._dense[name] if low_high is None else RoundedActivation(StaticRange.of(*low_high))
                self._model.set_submodule(name, found)
        self._keeps[unit.name], self._formats[unit.name] = choice.keep, choice.format


def _places(units: Sequence[ChannelUnit]) -> set[str]:
    """Modules that a policy may replace."""
    found = {unit.branch.module for unit in units if unit.branch is not None}
    for unit in units:
        found.update(total.activation_module for total in unit.sums if total.activation_module is not None)
        for layer in unit.channel_layers:
            found.add(layer.layer)
            if layer.activation_module is not None:
                found.add(layer.activation_module)
    return found


def _module(layer: ChannelLayer, dense: nn.Module, parts: Mapping[str, Tensor], *, reads_codes: bool) -> nn.Module:
    bias_O = parts.get("bias")
    if layer.kind is ChannelLayerKind.LINEAR:
        weight_OK = parts["weight"]
        linear = nn.Linear(weight_OK.shape[1], weight_OK.shape[0], bias=bias_O is not None, device="meta")
        linear.weight = nn.Parameter(weight_OK, requires_grad=False)
        if bias_O is not None:
            linear.bias = nn.Parameter(bias_O, requires_grad=False)
        return linear
    assert isinstance(dense, nn.Conv2d), layer.layer
    if "weight" in parts:
        weight_OCRR = _unflatten(parts["weight"], layer.kernel)
        return float_convolution(dense, weight_OCRR, bias_O, reads_codes=reads_codes)
    low_O, high_O = parts["output_range"]
    return StaticInt8Convolution(
        dense,
        codes_OCRR=_unflatten(parts["codes"], layer.kernel),
        scale_O=parts["scale"],
        bias_O=low_O.new_zeros(len(low_O)) if bias_O is None else bias_O,
        input_range=StaticRange.of(*parts["input_range"]),
        output_range=StaticRange.of(low_O.min(), high_O.max()),
    )


def _is_static(format_name: str) -> bool:
    return FORMATS.get(format_name).activation is ActivationPrecision.INT8_STATIC


def _unflatten(weight_OK: Tensor, kernel: int) -> Tensor:
    return weight_OK.view(weight_OK.shape[0], -1, kernel, kernel)
