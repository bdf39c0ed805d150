"""Passes that start in the middle: bit for bit those of a model that runs whole, whatever came before."""

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.architectures import structure_of
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from workers.assemble import Assembler
from workers.prefix import PREFIX_BYTES
from workers.variants import VariantMaker

LAYERS = 3
CALLS = 3
_BLOCK = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 48}
_ENCODER = {"vocab_size": 50, "num_labels": 3, "pad_token_id": 1, "initializer_range": 0.2}
_DECODER = {**_BLOCK, "vocab_size": 50, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "use_cache": False}
_DECODER |= {"max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2}
_T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": LAYERS, "num_heads": 4}
_T5 |= {"relative_attention_num_buckets": 8, "decoder_start_token_id": 0, "use_cache": False}
_IMAGE = {"num_labels": 3, "image_size": 24, "initializer_range": 0.2}
_RESNET = {"embedding_size": 16, "depths": [2, 2], "hidden_sizes": [16, 32], "num_labels": 3, "image_size": 24}

_T = transformers
FAMILIES: Mapping[str, Callable[[], nn.Module]] = {
    "bert": lambda: _T.BertForSequenceClassification(_T.BertConfig(**_ENCODER, **_BLOCK)),
    "distilbert": lambda: _T.DistilBertForSequenceClassification(
        _T.DistilBertConfig(**_ENCODER, dim=32, n_layers=LAYERS, n_heads=4, hidden_dim=48)
    ),
    "vit": lambda: _T.ViTForImageClassification(_T.ViTConfig(**_BLOCK, **_IMAGE, patch_size=8)),
    "deit": lambda: _T.DeiTForImageClassification(_T.DeiTConfig(**_BLOCK, **_IMAGE, patch_size=8)),
    "llama": lambda: _T.LlamaForCausalLM(_T.LlamaConfig(**_DECODER)),
    "qwen3": lambda: _T.Qwen3ForCausalLM(_T.Qwen3Config(**_DECODER)),
    "gemma2": lambda: _T.Gemma2ForCausalLM(_T.Gemma2Config(**_DECODER, sliding_window=4)),
    "glm": lambda: _T.GlmForCausalLM(_T.GlmConfig(**_DECODER)),
    "t5": lambda: _T.T5ForConditionalGeneration(_T.T5Config(**_T5)),
    "resnet": lambda: _T.ResNetForImageClassification(_T.ResNetConfig(layer_type="basic", **_RESNET)),
    "bottleneck": lambda: _T.ResNetForImageClassification(_T.ResNetConfig(layer_type="bottleneck", **_RESNET)),
    "mobilenet": lambda: _T.MobileNetV2ForImageClassification(
        _T.MobileNetV2Config(depth_multiplier=0.1, finegrained_output=False, image_size=32, num_labels=3)
    ),
}
CONVOLUTIONS = ("resnet", "bottleneck", "mobilenet")


class Rig:
    """One model assembled twice: with and without remembered calls."""

    def __init__(self, family: str, budget_bytes: int = PREFIX_BYTES) -> None:
        torch.manual_seed(0)
        model = FAMILIES[family]().eval().requires_grad_(False)
        if family in CONVOLUTIONS:
            _vary(model)
        self.structure = structure_of(model)
        formats = ("fp32", "w8a8s") if family in CONVOLUTIONS else ("fp32", "w8a8", "w4")
        self.space: SearchSpace = build_space(self.structure, SpaceConfig(), target_formats=formats, channel_multiple=4)
        self.calls = [_call(model, size) for size in range(1, CALLS + 1)]
        maker = VariantMaker(model, self.structure.units, None)
        self.whole = Assembler(copy.deepcopy(model), self.structure, maker.make)
        self.cached = Assembler(model, self.structure, maker.make)
        self.cached.remember(self.calls, budget_bytes=budget_bytes)
        self.cache = self.cached._prefixes

    def pass_over(self, assembler: Assembler, policy: Policy) -> list[Tensor]:
        assembler.apply(policy)
        return [assembler.logits(call.inputs, call.examples_per_call) for call in self.calls]

    def check(self, policy: Policy) -> None:
        found, expected = self.pass_over(self.cached, policy), self.pass_over(self.whole, policy)
        assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
        assert self.cache.size_bytes == sum(boundary.size_bytes for boundary in self.cache._kept.values())

    def blocks_run(self, policy: Policy) -> int:
        before = self.cache.blocks_run
        self.check(policy)
        return (self.cache.blocks_run - before) // CALLS

    def walk(self, steps: int, seed: int = 0) -> Iterator[Policy]:
        """Policies that share much with the one before, the dense one and others among them."""
        generator = random.Random(seed)
        policy = self.space.dense_policy()
        seen = [policy]
        for _ in range(steps):
            if generator.random() < 0.25:
                policy = generator.choice(seen)
            other = self.space.random_policy(generator)
            names = [unit_space.unit.name for unit_space in self.space.unit_spaces]
            if generator.random() < 0.7:
                names = names[generator.randrange(len(names)) :]
            policy = policy.replace(**{name: other[name] for name in generator.sample(names, min(2, len(names)))})
            seen.append(policy)
            yield policy


def _call(model: Any, size: int) -> StackedCalls:
    """As many calls of two examples as `size` says."""
    generator, batch = torch.Generator().manual_seed(size), 2 * size
    if hasattr(model.config, "image_size"):
        side = model.config.image_size
        inputs = {"pixel_values": torch.randn(batch, model.config.num_channels, side, side, generator=generator)}
    else:
        ids = torch.randint(2, 50, (batch, 6 + size), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, 4:] = 0
        inputs = {"input_ids": ids, "attention_mask": mask}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = ids[:, :5]
    return StackedCalls(inputs=inputs, examples_per_call=2, rows=tuple(range(batch)))


def _vary(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, 0, 0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_walks_give_what_whole_passes_give(family: str) -> None:
    rig = Rig(family)
    rig.check(rig.space.dense_policy())
    for policy in rig.walk(40 if family not in CONVOLUTIONS else 20):
        rig.check(policy)
    assert rig.cache.blocks_skipped > rig.cache.blocks_run / 4


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.05, 0.001])
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_short_of_memory_it_is_as_exact(family: str, share: float) -> None:
    rig = Rig(family)
    rig.check(rig.space.dense_policy())
    budget = int(rig.cache.size_bytes * 2 * share)
    rig = Rig(family, budget)
    for policy in (rig.space.dense_policy(), *rig.walk(15)):
        rig.check(policy)
        assert rig.cache.size_bytes <= budget


def test_a_probe_of_a_late_unit_starts_from_the_dense_model_even_between_others() -> None:
    rig = Rig("bert")
    dense = rig.space.dense_policy()
    generator = random.Random(5)
    rig.check(dense)
    rig.check(rig.space.random_policy(generator))
    blocks = len(rig.structure.stacks[0])
    for index in range(LAYERS):
        probe = dense.replace(**{f"layer.{index}.feed_forward": Choice(16, "w8a8")})
        assert rig.blocks_run(probe) == blocks - 1 - index


def test_a_changed_first_unit_runs_all() -> None:
    rig = Rig("bert")
    dense = rig.space.dense_policy()
    rig.check(dense)
    assert rig.structure.units[0].name == "embeddings"
    assert rig.blocks_run(dense.replace(embeddings=Choice(50, "w8"))) == LAYERS + 1


def test_stages_depend_on_all_units_that_their_layers_read_or_make() -> None:
    rig = Rig("resnet")
    dense, blocks = rig.space.dense_policy(), len(rig.structure.stacks[0])
    rig.check(dense)
    channels = {unit.name: unit.groups for unit in rig.structure.units}
    half = {name: dense.replace(**{name: Choice(groups // 2, "fp32")}) for name, groups in channels.items()}
    assert rig.blocks_run(half["stage.0"]) == blocks
    assert rig.blocks_run(half["stage.1"]) == blocks - 3
    assert rig.blocks_run(half["stage.1.layer.1.inner.0"]) == 1


def test_boundaries_that_stay_lie_evenly_and_the_ends_of_stacks_always_stay() -> None:
    rig = Rig("t5")
    rig.cache._stride = 2
    assert list(rig.cache._boundaries()) == [1, 2, 3]
    rig.cache._stride = 4
    assert list(rig.cache._boundaries()) == [2, 3]


def test_calls_that_are_not_remembered_run_whole() -> None:
    rig = Rig("bert")
    rig.cached.apply(rig.space.dense_policy())
    for call in rig.calls:
        rig.cached.logits(dict(call.inputs), call.examples_per_call)
    assert rig.cache.size_bytes == 0
    rig.cached.remember(rig.calls)
    rig.cached.logits(rig.calls[0].inputs, 2)
    assert rig.cached._prefixes.size_bytes == 0, "the policy that is assembled is not known to the new cache"


def test_outputs_that_are_not_tensors_turn_it_off() -> None:
    rig = Rig("bert")
    layer = rig.cached.model.bert.encoder.layer[0]
    handle = layer.register_forward_hook(lambda _module, _inputs, output: (output, [output]))
    model = rig.cached.model.bert.encoder.layer[1]
    first = model.register_forward_pre_hook(lambda _module, inputs: (inputs[0][0], *inputs[1:]))
    rig.check(rig.space.dense_policy())
    assert rig.cache.size_bytes == 0
    handle.remove()
    first.remove()
    for policy in rig.walk(5):
        rig.check(policy)
    assert rig.cache.blocks_skipped == 0


def test_out_of_memory_lets_go_of_all_outputs_and_runs_whole() -> None:
    rig = Rig("bert")
    dense = rig.space.dense_policy()
    rig.check(dense)
    layer, failures = rig.cached.model.bert.encoder.layer[2], [1]

    def fail(*_: object) -> None:
        if failures:
            failures.pop()
            raise MemoryError("once")

    layer.register_forward_pre_hook(fail)
    rig.check(dense.replace(**{"layer.2.attention": Choice(2, "fp32")}))
    assert not failures
    failures.append(1)
    rig.cache.forget()
    rig.cached.apply(dense)
    with pytest.raises(MemoryError, match="once"):
        rig.cached.model(**rig.calls[0].inputs)


def test_a_pass_that_fails_leaves_the_model_whole() -> None:
    rig = Rig("bert")
    dense = rig.space.dense_policy()
    rig.check(dense)
    handle = rig.cached.model.classifier.register_forward_pre_hook(_refuse)
    rig.cached.apply(dense.replace(**{"layer.2.attention": Choice(2, "fp32")}))
    with pytest.raises(RuntimeError, match="refused"):
        rig.cached.logits(rig.calls[0].inputs, 2)
    handle.remove()
    for policy in rig.walk(5):
        rig.check(policy)


def _refuse(*_: object) -> None:
    raise RuntimeError("refused")
