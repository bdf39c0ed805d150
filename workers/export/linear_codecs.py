"""Linear layers and embedding tables in a file, in the names and layouts of compressed-tensors where it has them.

Shape letters: O output features, K input features, N blocks of K.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.formats import FORMATS
from workers.export.layer_forms import Codec, FormError, LayerForm, Parts, StoredLayer
from workers.quantization.codes import Codes, pack_nibbles, unpack_nibbles
from workers.quantization.embedding import Int8RowsEmbedding
from workers.quantization.float_linear import FLOAT_TYPES, RoundedInt4Linear, RoundedLinear
from workers.quantization.linear import BlockInt4Linear, CallScope, DynamicInt8Linear, make_linear
from workers.quantization.row_linear import RowFloat8Linear, RowInt8Linear

_PER_WORD = 8
"""4-bit codes in an int32."""
Encoded = tuple[dict[str, Tensor | None], dict[str, Any]]


def pack_words(codes_OK: Tensor) -> Tensor:
    """Pack 4-bit codes, eight in an int32 along the last axis, the first one lowest; shape (O, ceil(K / 8))."""
    padded = nn.functional.pad(codes_OK, (0, -codes_OK.shape[-1] % _PER_WORD))
    return pack_nibbles(padded).flatten().view(torch.int32).view(*padded.shape[:-1], -1)


def unpack_words(packed: Tensor, count: int) -> Tensor:
    """Undo `pack_words`; `count` is the length of the last axis."""
    octets = packed.flatten().view(torch.uint8).view(*packed.shape[:-1], -1)
    return unpack_nibbles(octets, count).contiguous()


def _encode_linear(layer: nn.Linear) -> Encoded:
    return {"weight": layer.weight, "bias": layer.bias}, {}


def _decode_linear(parts: Parts, _stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    weight_OK = parts.take("weight", torch.float32, (None, None))
    bias_O = parts.bias(len(weight_OK))
    tensors = {"weight": weight_OK} if bias_O is None else {"weight": weight_OK, "bias": bias_O}
    return make_linear(tensors, FORMATS.get("fp32"), in_features=weight_OK.shape[1], scope=CallScope())


def _encode_rounded(layer: RoundedLinear) -> Encoded:
    return {"weight": layer.weight_OK, "bias": layer.bias_O}, {}


def _decode_rounded(parts: Parts, _stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    weight_OK = parts.take("weight", tuple(FLOAT_TYPES.values()), (None, None))
    return RoundedLinear(weight_OK, parts.bias(len(weight_OK), weight_OK.dtype), weight_OK.dtype)


def _encode_channels(layer: DynamicInt8Linear | RowInt8Linear | RowFloat8Linear) -> Encoded:
    return {"weight": layer.codes_OK, "weight_scale": layer.scale_O[:, None], "bias": layer.bias_O}, {}


def _channels(parts: Parts, dtype: torch.dtype = torch.int8) -> Codes:
    codes_OK = parts.take("weight", dtype, (None, None))
    rows, columns = codes_OK.shape
    scale_ON = parts.take("weight_scale", torch.float32, (rows, 1))
    return Codes(codes_OK=codes_OK, scale_ON=scale_ON, zeros_ON=None, block=columns)


def _decode_int8(parts: Parts, _stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    codes = _channels(parts)
    return DynamicInt8Linear(codes, parts.bias(len(codes.codes_OK)), CallScope())


def _decode_row_int8(parts: Parts, _stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    codes = _channels(parts)
    return RowInt8Linear(codes, parts.bias(len(codes.codes_OK)))


def _decode_row_float8(parts: Parts, _stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    codes = _channels(parts, torch.float8_e4m3fn)
    return RowFloat8Linear(codes, parts.bias(len(codes.codes_OK), torch.bfloat16))


def _packed(codes_OK: Tensor) -> dict[str, Tensor | None]:
    return {"weight_packed": pack_words(codes_OK), "weight_shape": torch.tensor(codes_OK.shape)}


def _unpacked(parts: Parts, stored: StoredLayer) -> tuple[Tensor, int]:
    """Codes, and how many blocks a row has."""
    if stored.block == 0:
        raise FormError("a block has one column or more; got 0")
    rows, columns = (int(size) for size in parts.take("weight_shape", torch.int64, (2,)))
    packed = parts.take("weight_packed", torch.int32, (rows, math.ceil(columns / _PER_WORD)))
    return unpack_words(packed, columns), math.ceil(columns / stored.block)


def _encode_int4(layer: BlockInt4Linear) -> Encoded:
    zeros = pack_words(layer.zeros_ON.t().contiguous()).t()
    return {
        **_packed(layer.codes_OK),
        "weight_scale": layer.scale_ON,
        "weight_zero_point": zeros,
        "bias": layer.bias_O,
    }, {"block": layer.block}


def _decode_int4(parts: Parts, stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    codes_OK, blocks = _unpacked(parts, stored)
    rows = len(codes_OK)
    zeros = parts.take("weight_zero_point", torch.int32, (math.ceil(rows / _PER_WORD), blocks))
    codes = Codes(
        codes_OK=codes_OK,
        scale_ON=parts.take("weight_scale", torch.float32, (rows, blocks)),
        zeros_ON=unpack_words(zeros.t().contiguous(), rows).t().contiguous(),
        block=stored.block,
    )
    return BlockInt4Linear(codes, parts.bias(rows))


def _encode_int4_bfloat16(layer: RoundedInt4Linear) -> Encoded:
    return {
        **_packed(layer.codes_OK),
        "weight_scale": layer.scale_ON,
        "weight_offset": layer.offset_ON,
        "bias": layer.bias_O,
    }, {"block": layer.block}


def _decode_int4_bfloat16(parts: Parts, stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    codes_OK, blocks = _unpacked(parts, stored)
    rows = len(codes_OK)
    return RoundedInt4Linear.from_parts(
        codes_OK,
        parts.take("weight_scale", torch.bfloat16, (rows, blocks)),
        parts.take("weight_offset", torch.bfloat16, (rows, blocks)),
        parts.bias(rows),
        block=stored.block,
    )


def _encode_rows(layer: Int8RowsEmbedding) -> Encoded:
    return {"weight": layer.codes_RK, "weight_scale": layer.scale_R1}, {}


def _decode_rows(parts: Parts, _stored: StoredLayer, _dense: nn.Module) -> nn.Module:
    codes = _channels(parts)
    return Int8RowsEmbedding(codes.codes_OK, codes.scale_ON)


_CHANNELS = ("weight", "weight_scale", "bias?")
_PACKED = ("weight_packed", "weight_shape", "weight_scale")
LINEAR_CODECS = (
    Codec(
        type=nn.Linear,
        form=LayerForm.LINEAR,
        tensors=("weight", "bias?"),
        encode=_encode_linear,
        decode=_decode_linear,
    ),
    Codec(
        type=RoundedLinear,
        form=LayerForm.FLOAT16,
        tensors=("weight", "bias?"),
        encode=_encode_rounded,
        decode=_decode_rounded,
    ),
    Codec(
        type=DynamicInt8Linear,
        form=LayerForm.INT8,
        tensors=_CHANNELS,
        encode=_encode_channels,
        decode=_decode_int8,
    ),
    Codec(
        type=RowInt8Linear,
        form=LayerForm.INT8_PER_ROW,
        tensors=_CHANNELS,
        encode=_encode_channels,
        decode=_decode_row_int8,
    ),
    Codec(
        type=RowFloat8Linear,
        form=LayerForm.FLOAT8_PER_ROW,
        tensors=_CHANNELS,
        encode=_encode_channels,
        decode=_decode_row_float8,
    ),
    Codec(
        type=BlockInt4Linear,
        form=LayerForm.INT4,
        tensors=(*_PACKED, "weight_zero_point", "bias?"),
        encode=_encode_int4,
        decode=_decode_int4,
    ),
    Codec(
        type=RoundedInt4Linear,
        form=LayerForm.INT4_BFLOAT16,
        tensors=(*_PACKED, "weight_offset", "bias?"),
        encode=_encode_int4_bfloat16,
        decode=_decode_int4_bfloat16,
    ),
    Codec(
        type=Int8RowsEmbedding,
        form=LayerForm.INT8_ROWS,
        tensors=("weight", "weight_scale"),
        encode=_encode_rows,
        decode=_decode_rows,
    ),
)
