"""Layers with torch's kernels against the layers that the search computes with."""

import random
from collections.abc import Callable

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from search_spaces.architectures import structure_of
from search_spaces.formats import FORMATS
from search_spaces.space import SpaceConfig, build_space
from workers.assemble import Assembler
from workers.export import torch_layers
from workers.export.torch_layers import (
    CPU_FORMS,
    Int8KernelLinear,
    SharedCodes,
    TensorCodes,
    quantize_tensor,
    torch_form,
)
from workers.quantization.codes import round_to_nearest
from workers.quantization.linear import CallScope, has_int8_products, make_linear
from workers.targets.device import KernelError
from workers.variants import VariantMaker

CPU = torch.device("cpu")
int8_only = pytest.mark.skipif(not has_int8_products(), reason="needs a CPU with VNNI instructions")
_BLOCK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_T = transformers
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: _T.BertForSequenceClassification(_T.BertConfig(vocab_size=50, **_BLOCK)),
    "vit": lambda: _T.ViTForImageClassification(_T.ViTConfig(**_BLOCK, image_size=24, patch_size=8)),
    "llama": lambda: _T.LlamaForCausalLM(
        _T.LlamaConfig(vocab_size=50, num_key_value_heads=2, head_dim=8, use_cache=False, **_BLOCK)
    ),
    "t5": lambda: _T.T5ForConditionalGeneration(_T.T5Config(**_T5, decoder_start_token_id=0, use_cache=False)),
}


def _inputs(family: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 24, 24, generator=generator)}
    ids = torch.randint(2, 50, (2, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    return {**found, "decoder_input_ids": ids} if family == "t5" else found


@int8_only
@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_model_with_kernels_gives_the_searched_logits_and_leaves_the_search_alone(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    structure = structure_of(model)
    assembler = Assembler(model, structure, VariantMaker(model, structure.units, None).make)
    formats = ("fp32", "w8a8", "bf16")
    space = build_space(structure, SpaceConfig(), target_formats=formats, channel_multiple=8)
    inputs, generator = _inputs(family), random.Random(0)
    for policy in (space.dense_policy(), *(space.random_policy(generator) for _ in range(4))):
        searched = assembler.apply(policy)
        with torch.inference_mode():
            expected = searched(**inputs).logits
            found = torch_form(searched, CPU_FORMS, CPU)(**inputs).logits
            assert searched(**inputs).logits.equal(expected)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3 * float(expected.abs().max()))


@int8_only
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["w8a8", "bf16"]),
    st.integers(1, 5),
    st.integers(2, 70),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_each_layer_computes_what_the_search_computes(
    name: str, rows: int, columns: int, outputs: int, bias: bool, seed: int
) -> None:
    target, generator = FORMATS.get(name), torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, columns, generator=generator)
    tensors = {"weight": weight}
    if target.is_quantized:
        codes = round_to_nearest(weight, target)
        tensors = {"codes": codes.codes_OK, "scale": codes.scale_ON}
    if bias:
        tensors["bias"] = torch.randn(outputs, generator=generator)
    layer = make_linear(tensors, target, in_features=columns, scope=CallScope())
    x = torch.randn(2, rows, columns, generator=generator) * 3 - 1
    expected = layer(x)
    found = CPU_FORMS[type(layer)](layer)(x)
    # An input on the edge between two codes may fall to either side.
    step = float(x.abs().max() - x.min().clamp(max=0)) / 255 * float(weight.abs().max())
    tolerance = 1.01 * step if target.is_quantized else 2**-7 * float(expected.abs().max())
    assert float((found - expected).abs().max()) <= tolerance + 1e-5
    assert found.shape == expected.shape


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30))
def test_codes_are_the_nearest_of_a_range_that_holds_zero(values: list[float]) -> None:
    x = torch.tensor(values)
    codes, scale, zero = quantize_tensor(x)
    assert 0 <= zero <= 255
    assert float(((codes.float() - zero) * scale - x).abs().max()) <= 0.5001 * scale + 1e-6
    assert scale >= (max(*values, 0) - min(*values, 0)) / 255 * 0.999


def test_codes_are_made_once_for_layers_that_read_the_same() -> None:
    made: list[Tensor] = []

    def count(x: Tensor) -> TensorCodes:
        made.append(x)
        return quantize_tensor(x)

    shared, x, y = SharedCodes(readers=3, quantize=count), torch.ones(2), torch.zeros(2)
    for tensor in (x, x, x, y, y, x):
        shared.codes(tensor)
    assert [t is x for t in made] == [True, False, True]


def test_a_layer_without_a_kernel_is_refused() -> None:
    codes = round_to_nearest(torch.randn(8, 32), FORMATS.get("w4"))
    tensors = {"codes": codes.codes_OK, "scale": codes.scale_ON, "zeros": codes.zeros_ON}
    layer = make_linear(tensors, FORMATS.get("w4"), in_features=32, scope=CallScope())
    with pytest.raises(KernelError, match="BlockInt4Linear has none on this one"):
        torch_form(nn.Sequential(layer), CPU_FORMS, CPU)


def test_int8_needs_a_processor_that_does_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_layers, "has_int8_products", lambda: False)
    codes = round_to_nearest(torch.randn(8, 32), FORMATS.get("w8a8"))
    tensors = {"codes": codes.codes_OK, "scale": codes.scale_ON}
    layer = make_linear(tensors, FORMATS.get("w8a8"), in_features=32, scope=CallScope())
    with pytest.raises(KernelError, match="VNNI"):
        Int8KernelLinear(layer)


@int8_only
def test_int8_needs_two_input_features() -> None:
    codes = round_to_nearest(torch.randn(8, 1), FORMATS.get("w8a8"))
    tensors = {"codes": codes.codes_OK, "scale": codes.scale_ON}
    layer = make_linear(tensors, FORMATS.get("w8a8"), in_features=1, scope=CallScope())
    with pytest.raises(KernelError, match="two input features or more"):
        Int8KernelLinear(layer)
