"""Number formats of layers. A format is real on a target only where a kernel computes in it."""

import math
from dataclasses import dataclass
from enum import StrEnum

from search_spaces.registry import Registry


class LayerType(StrEnum):
    """What a kernel computes with a weight."""

    LINEAR = "linear"
    """Matrix products."""
    CONVOLUTION = "convolution"
    """Convolutions over images, those of each channel by itself included."""
    EMBEDDING = "embedding"
    """Rows looked up in a table."""


class ActivationPrecision(StrEnum):
    """What the kernel does to a layer's input before it multiplies."""

    NONE = "none"
    """Left as it is."""
    INT8_PER_TENSOR = "int8_per_tensor"
    """Affine unsigned 8 bits, one scale and zero point for the whole tensor, taken from its range at run time."""
    INT8_PER_BLOCK = "int8_per_block"
    """Symmetric signed 8 bits, one scale for each row and block of input columns, taken at run time."""
    INT8_STATIC = "int8_static"
    """Affine unsigned 8 bits, one scale and zero point for the whole tensor, fixed by the calibration data; the output
    is rounded likewise, so that the next kernel takes it as it is."""
    INT8_PER_ROW = "int8_per_row"
    """Symmetric signed 8 bits, one scale for each row, taken at run time."""
    FLOAT8_PER_ROW = "float8_per_row"
    """Floating-point numbers of 8 bits (e4m3), one scale for each row, taken at run time; the output is bfloat16."""
    BFLOAT16 = "bfloat16"
    """Rounded to bfloat16, and so is the output."""
    FLOAT16 = "float16"
    """Rounded to float16, and so is the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How a layer's weights are stored and its inputs are treated.

    Attributes:
        name: The name in job files and policies.
        weight_bits: Bits of a stored weight.
        group_size: Input columns that share a scale; None means one scale for each output channel.
        per_tensor: Whether one scale serves the whole weight; without a group size only.
        symmetric: Whether the zero point is fixed, so that none is stored.
        activation: Treatment of the input.
        layer_types: Layers that have kernels in the format.
    """

    name: str
    weight_bits: int
    group_size: int | None = None
    per_tensor: bool = False
    symmetric: bool = True
    activation: ActivationPrecision = ActivationPrecision.NONE
    layer_types: tuple[LayerType, ...] = (LayerType.LINEAR,)

    @property
    def is_quantized(self) -> bool:
        """Whether weights are stored as codes with scales."""
        return self.weight_bits <= 8

    @property
    def is_float8(self) -> bool:
        """Whether codes are floating-point numbers of 8 bits (e4m3); else they are integers."""
        return self.activation is ActivationPrecision.FLOAT8_PER_ROW

    def weight_bytes(self, out_features: int, in_features: int) -> int:
        """Bytes of a weight matrix in this format: codes, float32 scales and packed zero points, without bias."""
        if not self.is_quantized:
            return out_features * in_features * self.weight_bits // 8
        if self.per_tensor:
            return out_features * in_features + 4
        if self.group_size is None:
            return out_features * (in_features + 4)
        blocks = math.ceil(in_features / self.group_size)
        code_bytes = out_features * blocks * self.group_size * self.weight_bits // 8
        zero_bytes = 0 if self.symmetric else out_features * math.ceil(blocks * self.weight_bits / 8)
        return code_bytes + 4 * out_features * blocks + zero_bytes


FORMATS: Registry[Format] = Registry("format", entry_point_group="paretrim.formats")

for _format in (
    Format(name="fp32", weight_bits=32, layer_types=tuple(LayerType)),
    Format(name="w8a8", weight_bits=8, activation=ActivationPrecision.INT8_PER_TENSOR),
    Format(name="w4", weight_bits=4, group_size=32, symmetric=False, activation=ActivationPrecision.INT8_PER_BLOCK),
    Format(
        name="w4g128", weight_bits=4, group_size=128, symmetric=False, activation=ActivationPrecision.INT8_PER_BLOCK
    ),
    Format(name="w8", weight_bits=8, layer_types=(LayerType.EMBEDDING,)),
    Format(
        name="w8a8s",
        weight_bits=8,
        activation=ActivationPrecision.INT8_STATIC,
        layer_types=(LayerType.CONVOLUTION,),
    ),
    Format(name="bf16", weight_bits=16, activation=ActivationPrecision.BFLOAT16),
    Format(name="fp16", weight_bits=16, activation=ActivationPrecision.FLOAT16),
    Format(name="w8a8r", weight_bits=8, activation=ActivationPrecision.INT8_PER_ROW),
    Format(name="fp8", weight_bits=8, activation=ActivationPrecision.FLOAT8_PER_ROW),
    Format(name="w4a16", weight_bits=4, group_size=128, symmetric=False, activation=ActivationPrecision.BFLOAT16),
):
    FORMATS.register(_format.name)(_format)
