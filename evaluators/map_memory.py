"""Peak memory of feature maps: what convolutional networks need at one time, from the channels of their units."""

from collections.abc import Iterator
from dataclasses import dataclass

from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit, CutLayer
from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Policy
from search_spaces.units import ModelStructure

_FLOAT_BYTES = 4
_BLOCK = 16
"""Channels of a block on a CPU with AVX-512; half as many elsewhere."""


@dataclass(frozen=True, slots=True)
class _Map:
    """A feature map of a unit's channels.

    Attributes:
        unit: Name of the unit.
        area: Height times width.
    """

    unit: str
    area: int


class MapMemory:
    """Peak memory of the feature maps of every policy; 0 where the model has none.

    While a layer runs, its input and output live, a copy of the input where that has to change between codes and
    numbers, and, inside a residual branch, the map that the branch began with. A sum reads two maps and writes a third.
    Codes take a byte, other numbers four.

    Args:
        structure: Units; those that share layers count.
        batch: Examples in a call.
        blocked: Whether float32 convolutions write channels in blocks, and a map that does not fill them is written
            once more without, as in ONNX Runtime; codes are then numbers while they are pooled. Else functions behind
            convolutions write maps of their own, as in torch.
    """

    def __init__(self, structure: ModelStructure, batch: int, *, blocked: bool = False) -> None:
        self._batch, self._blocked = batch, blocked
        self._base_format = structure.base_format
        self._units = [unit for unit in structure.units if isinstance(unit, ChannelUnit)]
        self._layers = [layer for unit in self._units for layer in unit.channel_layers]
        self._beside = {layer.layer: self._residual(layer) for layer in self._layers}
        self._pools = [(unit.name, *areas) for unit in self._units if (areas := self._pooled(unit)) is not None]

    def policy_bytes(self, policy: Policy) -> int:
        """Return the peak of a policy in bytes."""
        return self._batch * max(self._steps(policy), default=0)

    def _steps(self, policy: Policy) -> Iterator[int]:
        for unit in self._units:
            for cut in unit.cut(policy, self._base_format):
                residual = self._beside[cut.layer.layer]
                yield _layer_bytes(cut) + (0 if residual is None else _map_bytes(residual, policy))
                yield _unblocked_bytes(cut) if self._blocked else _normalized_bytes(cut)
            for total in unit.sums:
                yield 3 * _map_bytes(_Map(unit.name, total.height * total.width), policy)
        for name, before, after in self._pools:
            yield _map_bytes(_Map(name, before + after), policy)
            if self._blocked and _number_bytes(policy[name].format) < _FLOAT_BYTES:
                yield 2 * _FLOAT_BYTES * policy[name].keep * before

    def _residual(self, layer: ChannelLayer) -> _Map | None:
        """The map that lives beside a layer, as a residual sum behind it reads it; None where there is none."""
        entry, out = self._entry(layer), self._exit(layer)
        if entry is layer and out is layer:
            # A projection beside a branch runs behind it.
            beside = any(x is not layer and self._ends(x) == self._ends(layer) for x in self._layers)
            return _Map(layer.rows, layer.height * layer.width) if layer.rows and layer.columns and beside else None
        begin, end = entry.columns, out.rows
        is_joined = begin == end or any(other.rows == end and other.columns == begin for other in self._layers)
        # The first layer of a branch reads the map itself.
        if begin is None or end is None or not is_joined or entry is layer:
            return None
        return _Map(begin, entry.height * entry.width * entry.stride**2)

    def _ends(self, layer: ChannelLayer) -> tuple[str | None, str | None]:
        """The units that the branch of a layer reads and makes."""
        return self._entry(layer).columns, self._exit(layer).rows

    def _entry(self, layer: ChannelLayer) -> ChannelLayer:
        """The first layer of the branch that a layer is in."""
        while layer.columns is not None and self._is_inner(layer.columns):
            layer = self._products(rows=layer.columns)[0]
        return layer

    def _exit(self, layer: ChannelLayer) -> ChannelLayer:
        """The last one."""
        while layer.rows is not None and self._is_inner(layer.rows):
            layer = self._products(columns=layer.rows)[0]
        return layer

    def _is_inner(self, name: str) -> bool:
        """Whether a unit's channels lie between two layers only, so that no sum and no second reader needs them."""
        unit = next(unit for unit in self._units if unit.name == name)
        return not unit.sums and len(self._products(rows=name)) == len(self._products(columns=name)) == 1

    def _products(self, *, rows: str | None = None, columns: str | None = None) -> list[ChannelLayer]:
        """Layers but depthwise ones that make or read a unit's channels."""
        found = (layer for layer in self._layers if layer.kind is not ChannelLayerKind.DEPTHWISE)
        return [x for x in found if (rows is not None and x.rows == rows) or (columns and x.columns == columns)]

    def _pooled(self, unit: ChannelUnit) -> tuple[int, int] | None:
        """Area of a unit's map before and behind the pooling that its readers tell of; None where there is none."""
        made = max((x.height * x.width for x in self._layers if x.rows == unit.name), default=0)
        maps = [x for x in self._layers if x.columns == unit.name and x.kind is not ChannelLayerKind.LINEAR]
        read = max((x.height * x.width * x.stride**2 for x in maps), default=made)
        # Odd sizes leave a rest of less than a row and a column; pooling halves both.
        return (made, read) if 2 * read < made else None


def _layer_bytes(cut: CutLayer) -> int:
    """Input and output of a layer of one example, and the copy of its input between codes and numbers."""
    layer = cut.layer
    if cut.out_channels == 0 or cut.in_channels == 0:
        return 0
    written = cut.out_channels * layer.height * layer.width * _number_bytes(cut.format)
    if cut.input_format is None:
        return written
    channels = cut.out_channels if layer.kind is ChannelLayerKind.DEPTHWISE else cut.in_channels
    numbers = channels * layer.height * layer.width * layer.stride**2
    before, now = _number_bytes(cut.input_format), _number_bytes(cut.format)
    return written + numbers * (before if before == now else before + now)


def _unblocked_bytes(cut: CutLayer) -> int:
    """A float32 map in blocks beside the same one without; 0 where its channels fill the blocks."""
    channels, layer = cut.out_channels, cut.layer
    is_written = channels % _BLOCK and cut.in_channels and layer.kind is not ChannelLayerKind.LINEAR
    if not is_written or _number_bytes(cut.format) != _FLOAT_BYTES:
        return 0
    return _FLOAT_BYTES * (channels + _BLOCK * -(-channels // _BLOCK)) * layer.height * layer.width


def _normalized_bytes(cut: CutLayer) -> int:
    """A float32 map beside itself normalised or behind its function, which are operators of their own in torch."""
    layer = cut.layer
    if layer.kind is ChannelLayerKind.LINEAR or not cut.in_channels or _number_bytes(cut.format) != _FLOAT_BYTES:
        return 0
    return 2 * _FLOAT_BYTES * cut.out_channels * layer.height * layer.width


def _map_bytes(feature_map: _Map, policy: Policy) -> int:
    choice = policy[feature_map.unit]
    return choice.keep * feature_map.area * _number_bytes(choice.format)


def _number_bytes(format_name: str) -> int:
    return 1 if FORMATS.get(format_name).activation is ActivationPrecision.INT8_STATIC else _FLOAT_BYTES
