"""Bytes of layers that lie between two units of channels."""

from search_spaces.channels import ChannelUnit, CutLayer
from search_spaces.formats import FORMATS, ActivationPrecision
from search_spaces.policy import Choice, Policy

BIAS_BYTES = 4
"""A bias stays float32 in every format."""
RANGE_BYTES = 5
"""A static scale and its zero point."""


def layer_bytes(cut: CutLayer) -> int:
    """Bytes of one layer: weight, bias, and static ranges of its input and output.

    With no input channel left only the bias stays, which then holds what the layer gave on average.
    """
    bias_bytes = BIAS_BYTES * cut.out_channels * cut.layer.bias
    if cut.in_channels == 0 or cut.out_channels == 0:
        return bias_bytes
    number_format = FORMATS.get(cut.format)
    ranges = 2 * RANGE_BYTES if number_format.activation is ActivationPrecision.INT8_STATIC else 0
    return number_format.weight_bytes(cut.out_channels, cut.in_columns) + bias_bytes + ranges


def channel_bytes(unit: ChannelUnit, policy: Policy, base_format: str) -> int:
    """Bytes of the layers listed with a unit under a policy; over all units every layer counts once."""
    layers = sum(layer_bytes(cut) for cut in unit.cut(policy, base_format))
    return layers + _sum_bytes(unit, policy[unit.name])


def share_bytes(unit: ChannelUnit, choice: Choice) -> int:
    """Bytes of the layers listed with a unit when all units keep the same ratio: its share where one is asked for."""
    found = _sum_bytes(unit, choice)
    for layer, (_, rows, columns) in zip(unit.channel_layers, unit.layer_shapes(choice.keep), strict=True):
        if rows and columns and choice.keep:
            number_format = FORMATS.get(choice.format if layer.rows == unit.name else "fp32")
            found += number_format.weight_bytes(rows, columns) + BIAS_BYTES * rows * layer.bias
    return found


def _sum_bytes(unit: ChannelUnit, choice: Choice) -> int:
    """Ranges of the activations behind residual sums."""
    if FORMATS.get(choice.format).activation is not ActivationPrecision.INT8_STATIC:
        return 0
    return RANGE_BYTES * sum(total.activation_module is not None for total in unit.sums)
