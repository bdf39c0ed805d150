"""Whether the layers of a folder are those that its policy says: shapes and formats, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from search_spaces.channels import ChannelLayerKind, ChannelUnit, CutLayer
from search_spaces.formats import FORMATS, ActivationPrecision, Format
from search_spaces.policy import Choice, Policy
from search_spaces.registry import RegistryError
from search_spaces.units import ModelStructure, Unit
from workers.export.layer_forms import FolderError
from workers.quantization.convolution import ConstantMap, StaticInt8Convolution
from workers.quantization.embedding import Int8RowsEmbedding
from workers.quantization.float_linear import FLOAT_TYPES, RoundedInt4Linear, RoundedLinear
from workers.quantization.linear import BlockInt4Linear, ConstantBranch, DynamicInt8Linear
from workers.quantization.row_linear import RowFloat8Linear, RowInt8Linear

_QUANTIZED: dict[ActivationPrecision, type[nn.Module]] = {
    ActivationPrecision.INT8_PER_TENSOR: DynamicInt8Linear,
    ActivationPrecision.INT8_PER_BLOCK: BlockInt4Linear,
    ActivationPrecision.INT8_PER_ROW: RowInt8Linear,
    ActivationPrecision.FLOAT8_PER_ROW: RowFloat8Linear,
    ActivationPrecision.BFLOAT16: RoundedInt4Linear,
    ActivationPrecision.INT8_STATIC: StaticInt8Convolution,
    ActivationPrecision.NONE: Int8RowsEmbedding,
}
_FLOAT = (nn.Linear, nn.Conv2d, nn.Embedding)
_WEIGHTS = ("codes_OK", "codes_RK", "codes_OCRR", "weight_OK", "weight")


def check_agreement(model: nn.Module, structure: ModelStructure, policy: Policy) -> None:
    """Check that a model is that of a policy.

    Args:
        model: The model.
        structure: Units of the dense model, widths as in its configuration.
        policy: What it is said to be.

    Raises:
        FolderError: Units, shapes or formats differ; the message names the unit and the layer.
    """
    names = {unit.name for unit in structure.units}
    if names != policy.choices.keys():
        differing = sorted(names ^ policy.choices.keys())
        raise FolderError(f"policy.json names the units of the model; {differing[:5]} are in one of them only")
    for unit in structure.units:
        choice = policy[unit.name]
        if choice.keep > unit.groups or (choice.keep == 0 and unit.branch is None):
            raise FolderError(
                f"unit {unit.name!r} keeps {0 if unit.branch else 1} to {unit.groups} groups; got {choice.keep}"
            )
        for problem in _problems(model, structure, unit, policy):
            raise FolderError(f"unit {unit.name!r} is not as policy.json says: {problem}; export the model again")


def _problems(model: nn.Module, structure: ModelStructure, unit: Unit, policy: Policy) -> Iterator[str]:
    if isinstance(unit, ChannelUnit):
        for cut in unit.cut(policy, structure.base_format):
            yield from _channel_problems(model, cut)
    elif (choice := policy[unit.name]).keep == 0:
        yield from _constant_problems(model, unit)
    else:
        for name, rows, columns in unit.layer_shapes(choice.keep):
            yield from _layer_problems(model.get_submodule(name), name, (rows, columns), choice.format)
        yield from _selection_problems(model, unit, choice)


def _channel_problems(model: nn.Module, cut: CutLayer) -> Iterator[str]:
    layer = cut.layer
    if cut.out_channels == 0 or cut.in_channels == 0:
        return
    kernel = () if layer.kind is ChannelLayerKind.LINEAR else (layer.kernel, layer.kernel)
    shape = (cut.out_channels, cut.in_channels, *kernel)
    yield from _layer_problems(model.get_submodule(layer.layer), layer.layer, shape, cut.format)


def _constant_problems(model: nn.Module, unit: Unit) -> Iterator[str]:
    assert unit.branch is not None, unit.name
    inside = unit.consumer.startswith(unit.branch.module + ".")
    name = unit.branch.module if inside else unit.consumer
    left: Any = model.get_submodule(name)
    if not isinstance(left, ConstantBranch | ConstantMap) or len(left.bias_O) != unit.out_features:
        yield f"{name} should be a constant of {unit.out_features} features and is {left}"


def _layer_problems(layer: nn.Module, name: str, shape: tuple[int, ...], format_name: str) -> Iterator[str]:
    try:
        target = FORMATS.get(format_name)
    except RegistryError as error:
        yield str(error)
        return
    if not isinstance(layer, _expected(target)):
        yield f"{name} should be in {format_name} and is a {type(layer).__name__}"
        return
    found = tuple(next(getattr(layer, part) for part in _WEIGHTS if hasattr(layer, part)).shape)
    if found != shape:
        yield f"{name} should have shape {shape} and has {found}"
    if isinstance(layer, BlockInt4Linear | RoundedInt4Linear) and layer.block != target.group_size:
        yield f"{name} should have blocks of {target.group_size} columns and has {layer.block}"
    if isinstance(layer, RoundedLinear) and layer.dtype is not FLOAT_TYPES[target.activation]:
        yield f"{name} should be in {format_name} and is in {layer.dtype}"


def _expected(target: Format) -> type[nn.Module] | tuple[type[nn.Module], ...]:
    if target.is_quantized:
        return _QUANTIZED[target.activation]
    return RoundedLinear if target.activation in FLOAT_TYPES else _FLOAT


def _selection_problems(model: nn.Module, unit: Unit, choice: Choice) -> Iterator[str]:
    if unit.selection is None:
        return
    kept: Any = model.get_submodule(unit.selection).kept
    if (unit.groups if kept is None else len(kept)) != choice.keep:
        yield f"{unit.selection} should select {choice.keep} heads"
    elif kept is not None and not 0 <= int(kept.min()) <= int(kept.max()) < unit.groups:
        yield f"{unit.selection} selects heads that the model has not"
