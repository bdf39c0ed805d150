"""What a file says of compressed layers, and what a way to store one kind of them consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class FolderError(ValueError):
    """A folder is not what `export_huggingface` writes, or must not be read."""


class LayerForm(StrEnum):
    """What stands at a place of the model."""

    LINEAR = "linear"
    """float32 weights of another shape than the dense layer's."""
    FLOAT16 = "float16"
    """Weights, inputs and outputs in bfloat16 or float16."""
    INT8 = "int8"
    """Per-channel int8 weights, inputs rounded at run time with one range for a call."""
    INT8_PER_ROW = "int8_per_row"
    """Likewise, with a scale for each row of the input."""
    FLOAT8_PER_ROW = "float8_per_row"
    """Likewise, with weights and inputs in e4m3."""
    INT4 = "int4"
    """Affine 4-bit weights in blocks, packed; inputs rounded to int8."""
    INT4_BFLOAT16 = "int4_bfloat16"
    """Packed 4-bit weights in blocks, expanded to bfloat16."""
    INT8_ROWS = "int8_rows"
    """An embedding table of int8 rows."""
    CONVOLUTION = "convolution"
    """A convolution with float32 weights of another shape than the dense layer's."""
    STATIC_INT8 = "static_int8"
    """An int8 convolution between static codes."""
    ROUNDED = "rounded"
    """An activation function that became rounding to static codes."""
    IDENTITY = "identity"
    """An activation function that the layer before it does by itself."""
    CONSTANT = "constant"
    """What is left of a residual branch: a constant."""
    CONSTANT_MAP = "constant_map"
    """Likewise, spread over the places of a feature map."""
    BYPASS = "bypass"
    """The part of such a branch before its last layer."""
    SELECTION = "selection"
    """The heads whose columns of a shared bias stay."""


class StoredLayer(BaseModel):
    """What a file says of a layer beside its tensors.

    Attributes:
        form: What stands there.
        block: Columns that share a scale (INT4, INT4_BFLOAT16).
        returns_tuple: Whether the module returns a tuple (CONSTANT, BYPASS).
        stride: Step of the branch (CONSTANT_MAP).
        reads_codes: Whether the input was rounded to codes (CONVOLUTION).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: LayerForm
    block: int = Field(default=0, ge=0, le=65_536)
    returns_tuple: bool = False
    stride: int = Field(default=1, ge=1, le=64)
    reads_codes: bool = False


class FormError(ValueError):
    """Tensors do not fit together."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Tensors of one layer, each checked as it is taken.

    Attributes:
        tensors: By the part of the layer that they are.
    """

    tensors: Mapping[str, Tensor]

    def take(self, name: str, dtypes: torch.dtype | tuple[torch.dtype, ...], shape: tuple[int | None, ...]) -> Tensor:
        """Return a tensor.

        Args:
            name: The part.
            dtypes: Types that it may have.
            shape: Its shape; None stands for any length.

        Raises:
            FormError: It has another type or shape.
        """
        found = self.tensors[name]
        allowed = dtypes if isinstance(dtypes, tuple) else (dtypes,)
        sizes = tuple(found.shape)
        fits = len(sizes) == len(shape) and all(want in (None, got) for want, got in zip(shape, sizes, strict=True))
        if found.dtype not in allowed or not fits:
            raise FormError(f"{name} is {allowed[0]} of shape {shape}; got {found.dtype} of shape {sizes}")
        return found

    def bias(self, rows: int, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """The bias; None where there is none."""
        return self.take("bias", dtype, (rows,)) if "bias" in self.tensors else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Both ways of one form.

    Attributes:
        type: Class of the layer.
        form: Its form.
        tensors: Names of the tensors that are stored; those that end with "?" may be missing.
        encode: Tensors by name, and fields of the description, of a layer.
        decode: The layer from its tensors, its description and the dense module that it stands for.
    """

    type: type[nn.Module]
    form: LayerForm
    tensors: tuple[str, ...]
    encode: Callable[[Any], tuple[dict[str, Tensor | None], dict[str, Any]]]
    decode: Callable[[Parts, StoredLayer, nn.Module], nn.Module]

    @property
    def required(self) -> tuple[str, ...]:
        """Tensors that every layer of the form has."""
        return tuple(name for name in self.tensors if not name.endswith("?"))

    @property
    def names(self) -> tuple[str, ...]:
        """Tensors that a layer of the form may have."""
        return tuple(name.removesuffix("?") for name in self.tensors)
