"""4-bit weights in groups of 64: between `w4` (32) and `w4g128`."""

from search_spaces.formats import FORMATS, ActivationPrecision, Format

W4G64 = Format(
    name="w4g64", weight_bits=4, group_size=64, symmetric=False, activation=ActivationPrecision.INT8_PER_BLOCK
)

FORMATS.register(W4G64.name)(W4G64)
