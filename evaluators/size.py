"""Bytes of a policy's parameters, exactly as the artifact stores them."""

from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, Unit

BIAS_BYTES = 4
"""A bias stays float32 in every format."""


def unit_bytes(unit: Unit, choice: Choice) -> int:
    """Bytes of one unit's weights and biases under one choice.

    A unit that is left out still adds its consumer's bias, corrected by what the unit contributed on average, to the
    residual stream: `out_features` floats.
    """
    if choice.keep == 0:
        return BIAS_BYTES * unit.out_features
    number_format = FORMATS.get(choice.format)
    return sum(
        number_format.weight_bytes(out_features, in_features) + BIAS_BYTES * out_features
        for _, out_features, in_features in unit.layer_shapes(choice.keep)
    )


def size_bytes(structure: ModelStructure, policy: Policy) -> int:
    """Bytes of all parameters of a model under a policy.

    Args:
        structure: Units of the model, and the bytes of everything outside them.
        policy: A choice for every unit.

    Returns:
        Bytes of weights (codes, scales, zero points), biases and fixed parameters, without a file's headers.
    """
    return structure.fixed_bytes + sum(unit_bytes(unit, policy[unit.name]) for unit in structure.units)
