"""Compressed layers as they are stored in a file, and back: convolutions, what is left of branches, and all others.

Shape letters: O output channels, C input channels, R rows of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from search_spaces.architectures.shared_bias import GroupSelection
from workers.export.layer_forms import Codec, FolderError, FormError, LayerForm, Parts, StoredLayer
from workers.export.linear_codecs import LINEAR_CODECS, Encoded
from workers.quantization.convolution import (
    ConstantMap,
    FloatConvolution,
    RoundedActivation,
    StaticInt8Convolution,
    StaticRange,
    float_convolution,
)
from workers.quantization.linear import Bypass, ConstantBranch


def encode_layer(layer: nn.Module) -> tuple[StoredLayer, dict[str, Tensor]] | None:
    """Describe a compressed layer and name its tensors; None where the class has no form of its own."""
    codec = next((codec for codec in _CODECS if codec.type is type(layer)), None)
    if codec is None:
        return None
    tensors, fields = codec.encode(layer)
    stored = StoredLayer(form=codec.form, **fields)
    return stored, {name: tensor.detach().contiguous() for name, tensor in tensors.items() if tensor is not None}


def decode_layer(name: str, stored: StoredLayer, tensors: Mapping[str, Tensor], dense: nn.Module) -> nn.Module:
    """Build a layer from what was stored of it.

    Args:
        name: The layer's name, for messages.
        stored: Its description.
        tensors: Its tensors.
        dense: The module that stands there in the dense model.

    Raises:
        FolderError: Tensors are missing, or do not fit together.
    """
    codec = _codec(stored.form)
    missing = [part for part in codec.required if part not in tensors]
    if missing:
        raise FolderError(f"layer {name!r} is stored as {stored.form.value} and lacks {missing}; export it again")
    try:
        return codec.decode(Parts(tensors), stored, dense)
    except FormError as error:
        raise FolderError(f"layer {name!r} is no {stored.form.value}: {error}; export it again") from error


def tensor_names(form: LayerForm) -> tuple[str, ...]:
    """Names of tensors that a layer of the form may have."""
    return _codec(form).names


def stored_parts(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a module itself, by name."""
    buffers = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
    return {name: tensor.detach() for name, tensor in {**module._parameters, **buffers}.items() if tensor is not None}


def _codec(form: LayerForm) -> Codec:
    return next(codec for codec in _CODECS if codec.form is form)


def _convolution(dense: nn.Module) -> nn.Conv2d:
    if not isinstance(dense, nn.Conv2d):
        raise FormError(f"a convolution stands for a convolution; got {type(dense).__name__}")
    return dense


def _encode_convolution(layer: FloatConvolution) -> Encoded:
    return {"weight": layer.weight, "bias": layer.bias}, {"reads_codes": layer.reads_codes}


def _decode_convolution(parts: Parts, stored: StoredLayer, dense: nn.Module) -> nn.Module:
    convolution = _convolution(dense)
    weight_OCRR = parts.take("weight", torch.float32, (None, None, *convolution.kernel_size))
    return float_convolution(convolution, weight_OCRR, parts.bias(len(weight_OCRR)), reads_codes=stored.reads_codes)


def _encode_static(layer: StaticInt8Convolution) -> Encoded:
    return {
        "weight": layer.codes_OCRR,
        "weight_scale": layer.scale_O,
        "bias": layer.bias_O,
        "input_scale": layer.input_scale,
        "input_zero_point": layer.input_zero,
        "output_scale": layer.output_scale,
        "output_zero_point": layer.output_zero,
    }, {}


def _decode_static(parts: Parts, _stored: StoredLayer, dense: nn.Module) -> nn.Module:
    convolution = _convolution(dense)
    codes_OCRR = parts.take("weight", torch.int8, (None, None, *convolution.kernel_size))
    rows = len(codes_OCRR)
    return StaticInt8Convolution(
        convolution,
        codes_OCRR=codes_OCRR,
        scale_O=parts.take("weight_scale", torch.float32, (rows,)),
        bias_O=parts.take("bias", torch.float32, (rows,)),
        input_range=_range(parts, "input"),
        output_range=_range(parts, "output"),
    )


def _range(parts: Parts, side: str) -> StaticRange:
    return StaticRange(
        scale=parts.take(f"{side}_scale", torch.float32, ()),
        zero=parts.take(f"{side}_zero_point", torch.uint8, ()),
    )


def _constant(parts: Parts) -> Tensor:
    return parts.take("constant", torch.float32, (None,))


_CODECS = (
    *LINEAR_CODECS,
    Codec(
        type=FloatConvolution,
        form=LayerForm.CONVOLUTION,
        tensors=("weight", "bias?"),
        encode=_encode_convolution,
        decode=_decode_convolution,
    ),
    Codec(
        type=StaticInt8Convolution,
        form=LayerForm.STATIC_INT8,
        tensors=(
            "weight",
            "weight_scale",
            "bias",
            "input_scale",
            "input_zero_point",
            "output_scale",
            "output_zero_point",
        ),
        encode=_encode_static,
        decode=_decode_static,
    ),
    Codec(
        type=RoundedActivation,
        form=LayerForm.ROUNDED,
        tensors=("output_scale", "output_zero_point"),
        encode=lambda layer: ({"output_scale": layer.scale, "output_zero_point": layer.zero}, {}),
        decode=lambda parts, _stored, _dense: RoundedActivation(_range(parts, "output")),
    ),
    Codec(
        type=nn.Identity,
        form=LayerForm.IDENTITY,
        tensors=(),
        encode=lambda _layer: ({}, {}),
        decode=lambda _parts, _stored, _dense: nn.Identity(),
    ),
    Codec(
        type=ConstantBranch,
        form=LayerForm.CONSTANT,
        tensors=("constant",),
        encode=lambda layer: ({"constant": layer.bias_O}, {"returns_tuple": layer.returns_tuple}),
        decode=lambda parts, stored, _dense: ConstantBranch(_constant(parts), returns_tuple=stored.returns_tuple),
    ),
    Codec(
        type=ConstantMap,
        form=LayerForm.CONSTANT_MAP,
        tensors=("constant",),
        encode=lambda layer: ({"constant": layer.bias_O}, {"stride": layer.stride}),
        decode=lambda parts, stored, _dense: ConstantMap(_constant(parts), stride=stored.stride),
    ),
    Codec(
        type=Bypass,
        form=LayerForm.BYPASS,
        tensors=(),
        encode=lambda layer: ({}, {"returns_tuple": layer.returns_tuple}),
        decode=lambda _parts, stored, _dense: Bypass(returns_tuple=stored.returns_tuple),
    ),
    Codec(
        type=GroupSelection,
        form=LayerForm.SELECTION,
        tensors=("kept",),
        encode=lambda layer: ({"kept": layer.kept}, {}),
        decode=lambda parts, _stored, _dense: GroupSelection(parts.take("kept", torch.int64, (None,))),
    ),
)
