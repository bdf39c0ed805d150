"""Second moments against naive sums over single, unpadded examples."""

from typing import Any

import pytest
import torch

from evaluators.quality import stack_calls
from workers.calibrate import FOLDS, Calibration, CalibrationError, GramSum, collect_moments
from workers.data import load_splits
from workers.model import LoadedModel, load_model


@pytest.fixture(scope="module")
def text(tiny_text: Any) -> tuple[LoadedModel, Any]:
    loaded = load_model(tiny_text.model)
    return loaded, load_splits(tiny_text.data, loaded.task, seed=0).calibration


@pytest.fixture(scope="module")
def image(tiny_image: Any) -> tuple[LoadedModel, Any]:
    loaded = load_model(tiny_image.model)
    return loaded, load_splits(tiny_image.data, loaded.task, seed=0).calibration


def _naive(loaded: LoadedModel, examples: Any, layer: str) -> torch.Tensor:
    """Augmented Gram matrix from one forward pass an example, each token added by itself."""
    seen: list[torch.Tensor] = []
    module = loaded.model.get_submodule(layer)
    handle = module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0][0]))
    with torch.inference_mode():
        for example in examples:
            loaded.model(**loaded.task.collate([example]))
    handle.remove()
    width = module.in_features + 1
    total = torch.zeros(width, width, dtype=torch.float64)
    for tokens_TK in seen:
        for token_K in tokens_TK.double():
            augmented_K = torch.cat([token_K, torch.ones(1, dtype=torch.float64)])
            total += torch.outer(augmented_K, augmented_K)
    return total


@pytest.mark.parametrize("batch", [1, 5])
def test_padding_is_left_out(text: tuple[LoadedModel, Any], batch: int) -> None:
    loaded, examples = text
    calls = stack_calls(loaded.task, examples, batch=batch)
    if batch > 1:
        assert any(not bool(call.inputs["attention_mask"].all()) for call in calls)
    moments = collect_moments(loaded.model, loaded.structure.units, calls)
    for layer in ("bert.encoder.layer.0.attention.self.value", "bert.encoder.layer.1.output.dense"):
        torch.testing.assert_close(moments[layer].gram_KK, _naive(loaded, examples, layer), rtol=1e-4, atol=1e-4)
        assert moments[layer].tokens == sum(example.length for example in examples)


@pytest.mark.parametrize("batch", [1, 5])
def test_rounding_is_what_one_range_for_each_call_loses(text: tuple[LoadedModel, Any], batch: int) -> None:
    loaded, examples = text
    layer, error, tokens = loaded.model.get_submodule("bert.encoder.layer.1.output.dense"), 0.0, 0
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    calls = stack_calls(loaded.task, examples, batch=batch)
    with torch.inference_mode():
        for call in calls:
            loaded.model(**call.inputs)
            for start in range(0, len(call.rows), call.examples_per_call):
                part = slice(start, start + call.examples_per_call)
                hidden, mask = seen[-1][part].double(), call.inputs["attention_mask"][part].bool()
                step = (hidden.max().clamp(min=0) - hidden.min().clamp(max=0)) / 255
                lost = torch.round(hidden / step) * step - hidden
                error += float(lost[mask].square().mean(-1).sum())
                tokens += int(mask.sum())
    handle.remove()
    moments = collect_moments(loaded.model, loaded.structure.units, calls)["bert.encoder.layer.1.output.dense"]
    assert moments.tokens == tokens
    assert moments.rounding == pytest.approx(error, rel=0.05)


def test_images_have_no_mask(image: tuple[LoadedModel, Any]) -> None:
    loaded, examples = image
    moments = collect_moments(loaded.model, loaded.structure.units, stack_calls(loaded.task, examples, batch=1))
    layer = "vit.layers.1.attention.o_proj"
    naive = _naive(loaded, examples, layer)
    torch.testing.assert_close(moments[layer].gram_KK, naive, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments[layer].mean_K, naive[-1, :-1] / naive[-1, -1], rtol=1e-4, atol=1e-5)


def test_producers_share_their_moments(text: tuple[LoadedModel, Any]) -> None:
    loaded, examples = text
    moments = collect_moments(loaded.model, loaded.structure.units, stack_calls(loaded.task, examples, batch=1))
    prefix = "bert.encoder.layer.0.attention.self"
    assert moments[f"{prefix}.query"].gram_FKK is moments[f"{prefix}.value"].gram_FKK
    assert moments.keys() == {layer for unit in loaded.structure.units if unit.producers for layer in unit.layers}


def test_folds_are_alike_in_size_even_in_a_single_stacked_call(image: tuple[LoadedModel, Any]) -> None:
    loaded, examples = image
    calls = stack_calls(loaded.task, examples, batch=1, stacked_tokens=10**6)
    assert len(calls) == 1
    moments = collect_moments(loaded.model, loaded.structure.units, calls)
    tokens_F = next(iter(moments.values())).gram_FKK[:, -1, -1]
    assert tokens_F.tolist() == [17 * len(examples) / FOLDS] * FOLDS


def test_hooks_are_gone_afterwards(text: tuple[LoadedModel, Any]) -> None:
    loaded, examples = text
    collect_moments(loaded.model, loaded.structure.units, stack_calls(loaded.task, examples[:4], batch=1))
    assert not any(module._forward_pre_hooks for module in loaded.model.modules())


def test_values_that_are_not_finite_name_layer_and_unit(tiny_text: Any, text: tuple[LoadedModel, Any]) -> None:
    _, examples = text
    broken = load_model(tiny_text.model)
    broken.model.get_submodule("bert.encoder.layer.0.output.dense").weight[0, 0] = float("inf")
    calls = stack_calls(broken.task, examples, batch=1)
    with pytest.raises(CalibrationError, match=r"layer\.1\.attention\.self\.query \(unit layer\.1\.attention\)"):
        collect_moments(broken.model, broken.structure.units, calls)


def test_the_pass_is_made_once_and_only_when_asked_for(text: tuple[LoadedModel, Any]) -> None:
    loaded, examples = text
    passes: list[int] = []

    def model() -> torch.nn.Module:
        passes.append(1)
        return loaded.model

    calibration = Calibration(loaded.structure.units, stack_calls(loaded.task, examples, batch=1), model)
    assert not passes
    for unit in loaded.structure.units[-2:]:
        calibration.moments(unit.consumer)
    assert len(passes) == 1


def test_digest_belongs_to_the_examples(text: tuple[LoadedModel, Any]) -> None:
    loaded, examples = text

    def digest(part: Any) -> str:
        return Calibration(loaded.structure.units, stack_calls(loaded.task, part, batch=1), lambda: loaded.model).digest

    assert digest(examples) == digest(examples)
    assert digest(examples) != digest(examples[1:])


@pytest.mark.parametrize("name", ["text", "image"])
def test_a_small_memory_takes_more_passes_and_gives_the_same(name: str, request: pytest.FixtureRequest) -> None:
    loaded, examples = request.getfixturevalue(name)
    units = [unit for unit in loaded.structure.units if unit.producers]
    calls = stack_calls(loaded.task, examples, batch=1)
    together = collect_moments(loaded.model, units, calls)
    passes: list[int] = []

    def model() -> torch.nn.Module:
        passes.append(1)
        return loaded.model

    calibration = Calibration(units, calls, model, moments_bytes=1)
    for unit in units:
        for layer in unit.layers:
            assert calibration.moments(layer).gram_FKK.equal(together[layer].gram_FKK)
        assert len(calibration._moments) == len(unit.layers)
    assert len(passes) == len(units)


def test_a_pass_ends_where_the_last_layer_is_reached(text: tuple[LoadedModel, Any]) -> None:
    loaded, examples = text
    calls = stack_calls(loaded.task, examples, batch=1)
    reached: list[int] = []
    with loaded.model.classifier.register_forward_hook(lambda *_: reached.append(1)):
        collect_moments(loaded.model, loaded.structure.units[:2], calls)
    assert len(reached) == 1
    assert len(calls) > 1


def test_a_layer_that_runs_twice_is_seen_twice(text: tuple[LoadedModel, Any]) -> None:
    loaded, examples = text
    calls = stack_calls(loaded.task, examples, batch=1)
    unit = loaded.structure.unit("layer.0.feed_forward")
    once = collect_moments(loaded.model, [unit], calls)[unit.consumer]
    encoder = loaded.model.bert.encoder
    layers = encoder.layer
    try:
        encoder.layer = torch.nn.ModuleList([layers[0], layers[1], layers[0]])
        twice = collect_moments(loaded.model, [unit], calls)[unit.consumer]
    finally:
        encoder.layer = layers
    assert twice.tokens == 2 * once.tokens


def test_tiles_and_chunks_are_one_product() -> None:
    hidden = torch.randn(6, 900, 700, generator=torch.Generator().manual_seed(0)) + 0.5
    mask = torch.rand(6, 900, generator=torch.Generator().manual_seed(1)) > 0.2
    total = GramSum()
    total.add_batch(hidden[:3], mask[:3])
    total.add_batch(hidden[3:], mask[3:])
    gram_FKK = total.finish()
    for fold in range(FOLDS):
        # The second batch starts where the first one left off, at the other fold.
        tokens = torch.cat([hidden[row][mask[row]] for row in range(6) if row % FOLDS == fold]).double()
        augmented = torch.cat([tokens, torch.ones(len(tokens), 1, dtype=torch.float64)], 1)
        expected = augmented.T @ augmented
        assert float((gram_FKK[fold] - expected).abs().max() / expected.abs().max()) < 1e-6
        assert gram_FKK[fold].equal(gram_FKK[fold].T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_summed_in_full(dtype: torch.dtype) -> None:
    hidden = (torch.randn(2, 5000, 8, generator=torch.Generator().manual_seed(0)) + 30).to(dtype)
    total = GramSum()
    total.add_batch(hidden, None)
    expected = (hidden.double().flatten(0, 1).T @ hidden.double().flatten(0, 1)).float()
    torch.testing.assert_close(total.finish().sum(0)[:-1, :-1].float(), expected, rtol=1e-5, atol=0)
