"""Layers in a file: codes come back bit by bit, in the layout of compressed-tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from search_spaces.formats import FORMATS, LayerType
from workers.export.layer_codecs import decode_layer, encode_layer
from workers.export.layer_forms import FolderError, LayerForm, StoredLayer
from workers.export.linear_codecs import pack_words, unpack_words
from workers.export.server_config import quantization_config
from workers.quantization.codes import round_to_nearest
from workers.quantization.linear import CallScope, make_linear


def _codes(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(16, (rows, columns), generator=generator, dtype=torch.uint8)


@given(rows=st.integers(1, 9), columns=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_packed_words_hold_eight_codes_each_the_first_one_lowest(rows: int, columns: int, seed: int) -> None:
    codes = _codes(rows, columns, seed)
    packed = pack_words(codes)
    assert packed.shape == (rows, -(-columns // 8))
    for row in range(rows):
        for column in range(columns):
            assert (int(packed[row, column // 8]) >> (4 * (column % 8))) & 15 == int(codes[row, column])
    assert unpack_words(packed, columns).equal(codes)


def _layer(name: str, rows: int, columns: int, seed: int, *, bias: bool) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    target = FORMATS.get(name)
    tensors = {"weight": weight}
    if target.is_quantized:
        codes = round_to_nearest(weight, target)
        tensors = {"codes": codes.codes_OK, "scale": codes.scale_ON}
        tensors |= {} if codes.zeros_ON is None else {"zeros": codes.zeros_ON}
    if bias:
        tensors["bias"] = torch.randn(rows, generator=generator)
    return make_linear(tensors, target, in_features=columns, scope=CallScope())


_LINEAR = [name for name in FORMATS if LayerType.LINEAR in FORMATS.get(name).layer_types]


@given(
    name=st.sampled_from(_LINEAR),
    rows=st.integers(1, 20),
    columns=st.integers(1, 150),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_layers_come_back_exactly(name: str, rows: int, columns: int, bias: bool, seed: int) -> None:
    layer = _layer(name, rows, columns, seed, bias=bias)
    encoded = encode_layer(layer)
    assert encoded is not None
    found = decode_layer("x", *encoded, nn.Linear(columns, rows))
    assert found.state_dict().keys() == layer.state_dict().keys()
    assert all(_bits(found.state_dict()[key]).equal(_bits(value)) for key, value in layer.state_dict().items())
    inputs = torch.randn(3, 5, columns)
    assert found(inputs).equal(layer(inputs))


def _bits(tensor: Tensor) -> Tensor:
    """Bytes of a tensor: those of 8-bit floating-point numbers can't be compared otherwise."""
    return tensor.contiguous().view(torch.uint8)


def _encoded(name: str) -> tuple[StoredLayer, dict[str, Tensor]]:
    encoded = encode_layer(_layer(name, 16, 64, 0, bias=True))
    assert encoded is not None
    return encoded


@pytest.mark.parametrize(
    ("name", "part", "damage", "message"),
    [
        ("w8a8", "weight_scale", lambda t: t[:-1], r"weight_scale is torch.float32 of shape \(16, 1\); got"),
        ("w8a8", "weight", lambda t: t.float(), "weight is torch.int8"),
        ("w8a8", "weight", lambda t: t.flatten(), "is no int8: weight is"),
        ("w8a8", "bias", lambda t: t.double(), "bias is torch.float32"),
        ("w4", "weight_packed", lambda t: t[:, 1:], "weight_packed is torch.int32"),
        ("w4", "weight_zero_point", lambda t: t[:0], "weight_zero_point is torch.int32"),
        ("w4", "weight_shape", lambda t: torch.tensor([2**40, 2**40]), "weight_packed is torch.int32"),
        ("w4", "weight_shape", lambda t: -t, "weight_packed is torch.int32"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name: str, part: str, damage: Any, message: str) -> None:
    stored, tensors = _encoded(name)
    with pytest.raises(FolderError, match=message):
        decode_layer("x", stored, {**tensors, part: damage(tensors[part]).contiguous()}, nn.Linear(64, 16))


def test_missing_tensors_and_wrong_places_are_refused() -> None:
    stored, tensors = _encoded("w4")
    with pytest.raises(FolderError, match=r"'x' is stored as int4 and lacks \['weight_scale'\]"):
        decode_layer("x", stored, {k: v for k, v in tensors.items() if k != "weight_scale"}, nn.Linear(64, 16))
    with pytest.raises(FolderError, match="a convolution stands for a convolution; got Linear"):
        decode_layer(
            "x", StoredLayer(form=LayerForm.CONVOLUTION), {"weight": torch.zeros(1, 1, 3, 3)}, nn.Linear(64, 16)
        )


def test_servers_are_told_of_every_format() -> None:
    layers = {"a": _encoded("w8a8")[0], "b": _encoded("w4")[0], "c": _encoded("w4g128")[0]}
    found = quantization_config(layers, ["head"])
    assert found is not None
    assert found["format"] == "mixed-precision"
    assert found["ignore"] == ["head"]
    groups = {group["targets"][0]: group for group in found["config_groups"].values()}
    assert groups["a"]["format"] == "int-quantized"
    assert [groups[name]["weights"].get("group_size") for name in "abc"] == [None, 32, 128]
    assert quantization_config({"x": StoredLayer(form=LayerForm.BYPASS)}, []) is None


@pytest.mark.parametrize("name", ["w8a8", "w8a8r", "fp8", "w4", "w4g128"])
def test_compressed_tensors_reads_the_same_weights(name: str, tmp_path: Path) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    from compressed_tensors.quantization import QuantizationScheme

    layer: Any = _layer(name, 16, 256, 0, bias=False)
    encoded = encode_layer(layer)
    assert encoded is not None
    config = quantization_config({"x": encoded[0]}, [])
    assert config is not None
    scheme = QuantizationScheme(**config["config_groups"]["group_0"])
    reader = compressors.BaseCompressor.get_value_from_registry(config["format"])
    read = reader.decompress(dict(encoded[1]), scheme)["weight"]
    expected = layer.weight_OK if name.startswith("w4") else layer.codes_OK.float() * layer.scale_O[:, None]
    assert read.equal(expected)
