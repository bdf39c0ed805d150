"""Second moments against naive sums over single, unpadded examples."""

from typing import Any

import pytest
import torch

from evaluators.quality import stack_calls
from workers.calibrate import FOLDS, Calibration, CalibrationError, collect_moments
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
    assert moments.keys() == {layer for unit in loaded.structure.units for layer in unit.layers}


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
    calibration.moments(loaded.structure.units[0].consumer)
    calibration.moments(loaded.structure.units[1].consumer)
    assert len(passes) == 1


def test_digest_belongs_to_the_examples(text: tuple[LoadedModel, Any]) -> None:
    loaded, examples = text

    def digest(part: Any) -> str:
        return Calibration(loaded.structure.units, stack_calls(loaded.task, part, batch=1), lambda: loaded.model).digest

    assert digest(examples) == digest(examples)
    assert digest(examples) != digest(examples[1:])
