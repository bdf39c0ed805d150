"""Bytes of a policy's parameters, exactly as the artifact stores them."""

from evaluators.channel_size import channel_bytes, share_bytes
from search_spaces.channels import ChannelUnit
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, Unit

FLOAT_BYTES = 4
"""Biases and norms stay float32 in every format."""


def unit_bytes(unit: Unit, choice: Choice) -> int:
    """Bytes of one unit's weights, biases and inner norms under one choice.

    A unit that is left out still adds its consumer's bias, corrected by what the unit contributed on average, to the
    residual stream: `out_features` floats. Of channels, whose layers depend on other units too, this is the share when
    all units keep the same ratio.
    """
    if isinstance(unit, ChannelUnit):
        return share_bytes(unit, choice)
    if choice.keep == 0:
        return FLOAT_BYTES * unit.out_features
    number_format = FORMATS.get(choice.format)
    return FLOAT_BYTES * unit.inner_parameters + sum(
        number_format.weight_bytes(out_features, in_features) + FLOAT_BYTES * out_features * unit.has_bias(layer)
        for layer, out_features, in_features in unit.layer_shapes(choice.keep)
    )


def size_bytes(structure: ModelStructure, policy: Policy) -> int:
    """Bytes of all parameters of a model under a policy.

    Args:
        structure: Units of the model, and the bytes of everything outside them.
        policy: A choice for every unit.

    Returns:
        Bytes of weights (codes, scales, zero points), biases and fixed parameters, without a file's headers.
    """
    return structure.fixed_bytes + sum(
        channel_bytes(unit, policy, structure.base_format)
        if isinstance(unit, ChannelUnit)
        else unit_bytes(unit, policy[unit.name])
        for unit in structure.units
    )
