"""Units of real transformers classes: named in order, cut as a mask would cut them, counted to the byte."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers
from tiny_families import CONVOLUTIONAL, LAYERS
from tiny_families import FAMILIES as ALL_FAMILIES
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from evaluators.size import size_bytes
from search_spaces.architectures import ARCHITECTURES, UnsupportedModelError, structure_of
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, PartKind, Unit, UnitKind
from workers.assemble import Assembler
from workers.calibrate import collect_moments
from workers.quantization.linear import UnreadNorm
from workers.variants import VariantMaker

FAMILIES = {name: make for name, make in ALL_FAMILIES.items() if name not in CONVOLUTIONAL}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than these sizes can gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Family:
    """A tiny model with random weights throughout, its inputs, and what it computes before anything touches it."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.model: Any = FAMILIES[name]().eval().requires_grad_(False)
        self.model.set_attn_implementation("eager")
        for parameter in self.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
        self.inputs = self._inputs()
        self.original = self.logits()
        self.structure: ModelStructure = structure_of(self.model)
        self.blocks = [unit for unit in self.structure.units if unit.kind is not UnitKind.EMBEDDING]
        self.maker = VariantMaker(self.model, self.structure.units, None)
        self.assembler = Assembler(self.model, self.structure, self.maker.make)

    def _inputs(self) -> dict[str, Tensor]:
        if hasattr(self.model.config, "image_size"):
            return {"pixel_values": torch.randn(2, 3, 24, 24)}
        ids = torch.randint(2, 50, (2, 9))
        if self.model.config.is_encoder_decoder:
            return {"input_ids": ids, "decoder_input_ids": torch.randint(2, 50, (2, 7))}
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def logits(self) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.model(**self.inputs).logits
        return found

    def policy(self, keep: Callable[[Unit], int], format_name: str = "fp32") -> Policy:
        """The same for every block; tables of embeddings stay as they are."""
        choices = {u.name: Choice(keep(u), format_name if keep(u) else "fp32") for u in self.blocks}
        tables = {u.name: Choice(u.groups, "fp32") for u in self.structure.units if u.kind is UnitKind.EMBEDDING}
        return Policy(tables | choices)

    def apply(self, policy: Policy) -> Tensor:
        self.assembler.apply(policy)
        return self.logits()

    @property
    def dense(self) -> Policy:
        return self.policy(lambda unit: unit.groups)


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


def _part(unit: Unit) -> int:
    """Another share of every unit, so that no two of a model keep alike."""
    return max(1, unit.groups * (2 + sum(map(ord, unit.name)) % 3) // 5)


def _masked(family: Family, policy: Policy) -> Tensor:
    """Outputs of the dense model where what the policy cuts reaches no output projection."""
    kept = {}
    for unit in family.structure.units:
        if policy[unit.name].keep == unit.groups:
            continue
        cut = family.maker.make(unit, policy[unit.name])[f"{unit.consumer}/weight"]
        dense = family.maker.make(unit, Choice(unit.groups, "fp32"))[f"{unit.consumer}/weight"]
        kept[unit.consumer] = (dense.T[:, None] == cut.T).all(-1).any(1)
        assert int(kept[unit.consumer].sum()) == policy[unit.name].keep * unit.columns_per_group
    family.assembler.apply(family.dense)
    handles = [
        family.model.get_submodule(name).register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,))
        for name, mask in kept.items()
    ]
    try:
        return family.logits()
    finally:
        for handle in handles:
            handle.remove()


class TestEveryFamily:
    def test_whole_units_compute_what_the_model_computed(self, family: Family) -> None:
        assert family.logits().equal(family.original)
        family.apply(family.policy(_part))
        assert family.apply(family.dense).equal(family.original)

    def test_preparing_again_changes_nothing(self, family: Family) -> None:
        family.assembler.apply(family.dense)
        assert structure_of(family.model) == family.structure

    def test_a_cut_model_is_the_masked_model(self, family: Family) -> None:
        policy = family.policy(_part)
        cut = family.apply(policy)
        assert not torch.allclose(cut, family.original, atol=1e-2)
        torch.testing.assert_close(cut, _masked(family, policy), rtol=1e-4, atol=1e-4)

    def test_each_unit_cut_alone_is_the_masked_model(self, family: Family) -> None:
        for unit in family.blocks:
            policy = family.dense.replace(**{unit.name: Choice(_part(unit), "fp32")})
            torch.testing.assert_close(family.apply(policy), _masked(family, policy), rtol=1e-4, atol=1e-4)

    def test_shapes_are_smaller(self, family: Family) -> None:
        dense = {name: p.numel() for name, p in family.model.named_parameters()}
        family.apply(family.policy(_part))
        for unit in family.blocks:
            for layer, out_features, in_features in unit.layer_shapes(_part(unit)):
                linear = family.model.get_submodule(layer)
                assert tuple(linear.weight.shape) == (out_features, in_features)
                assert linear.weight.numel() < dense[f"{layer}.weight"]
                assert (linear.bias is not None) == unit.has_bias(layer)

    @pytest.mark.parametrize("format_name", ["fp32", "w8a8"])
    @pytest.mark.parametrize("keep", [_part, lambda u: u.groups, lambda u: 0], ids=["part", "all", "none"])
    def test_size_is_what_the_assembled_model_holds(
        self, family: Family, keep: Callable[[Unit], int], format_name: str
    ) -> None:
        policy = family.policy(keep, format_name)
        family.apply(policy)
        tensors = {id(t): t for t in family.model.state_dict(keep_vars=True).values()}
        held = sum(t.numel() * t.element_size() for t in tensors.values())
        assert size_bytes(family.structure, policy) == held

    def test_any_unit_can_be_left_out(self, family: Family) -> None:
        for unit in family.blocks:
            assert unit.branch is not None
            left_out = family.apply(family.dense.replace(**{unit.name: Choice(0, "fp32")}))
            family.assembler.apply(family.dense)
            consumer: Any = family.model.get_submodule(unit.consumer)
            with torch.no_grad():
                weight = consumer.weight.clone()
                consumer.weight.zero_()
                expected = family.logits()
                consumer.weight.copy_(weight)
            torch.testing.assert_close(left_out, expected, rtol=1e-4, atol=1e-4)

    def test_all_units_can_be_left_out(self, family: Family) -> None:
        logits = family.apply(family.policy(lambda unit: 0))
        assert logits.shape == family.original.shape
        assert bool(logits.isfinite().all())

    @pytest.mark.parametrize("format_name", [name for name in ("w8a8", "w4") if name in FORMATS])
    def test_quantized_units_run_whole_and_cut(self, family: Family, format_name: str) -> None:
        for keep in (_part, lambda unit: unit.groups):
            assert bool(family.apply(family.policy(keep, format_name)).isfinite().all())

    def test_every_linear_layer_of_a_block_belongs_to_one_unit(self, family: Family) -> None:
        family.assembler.apply(family.dense)
        named = [layer for unit in family.blocks for layer in unit.layers]
        linear = {name for name, module in family.model.named_modules() if isinstance(module, nn.Linear)}
        inside = {name for name in linear if ".layer" in name or ".block" in name}
        assert len(named) == len(set(named))
        assert set(named) == inside

    def test_units_come_in_the_order_of_the_data(self, family: Family) -> None:
        family.assembler.apply(family.dense)
        seen: list[str] = []
        handles = [
            family.model.get_submodule(unit.consumer).register_forward_hook(
                lambda *_, name=unit.name: seen.append(name)
            )
            for unit in family.structure.units
        ]
        family.logits()
        for handle in handles:
            handle.remove()
        assert seen == [unit.name for unit in family.structure.units]

    def test_fixed_parts_name_every_table_norm_and_head(self, family: Family) -> None:
        family.assembler.apply(family.dense)
        parts = family.structure.fixed
        units = {layer for unit in family.structure.units for layer in unit.layers}
        modules = dict(family.model.named_modules())
        linear = [
            (m.in_features, m.out_features) for n, m in modules.items() if isinstance(m, nn.Linear) and n not in units
        ]
        assert sorted(p.width for p in parts if p.kind is PartKind.LINEAR) == sorted(linear)
        norms = [n for n, m in modules.items() if "norm" in type(m).__name__.lower() and "q_norm" not in n]
        norms = [n for n in norms if "k_norm" not in n]
        of_branches = {unit.branch.norm for unit in family.structure.units if unit.branch and unit.branch.norm}
        assert of_branches <= set(norms)
        # Those of root mean squares have no bias.
        for kind, has_bias in ((PartKind.LAYER_NORM, True), (PartKind.RMS_NORM, False)):
            there = {name for name in norms if (getattr(modules[name], "bias", None) is not None) == has_bias}
            assert sum(p.count for p in parts if p.kind is kind) == len(there - of_branches)
            branches = [unit.branch for unit in family.structure.units if unit.branch and unit.branch.norm in there]
            assert all(branch.norm_kind is kind for branch in branches)

    def test_a_branch_that_is_left_out_takes_the_norm_of_its_input_along(self, family: Family) -> None:
        """Norms that ran for the dense model and do not run now are those that units name, and all of them."""
        small = family.dense.replace(**{unit.name: Choice(0, "fp32") for unit in family.blocks})
        before, now = (_norms_that_run(family, policy) for policy in (family.dense, small))
        assert before - now == {unit.branch.norm for unit in family.blocks if unit.branch.norm is not None}
        assert (before != now) == family.structure.normalizes_first
        family.apply(family.dense)
        assert _norms_that_run(family, family.dense) == before


def _norms_that_run(family: Family, policy: Policy) -> set[str]:
    family.apply(policy)
    seen: set[str] = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: seen.add(name))
        for name, module in family.model.named_modules()
        if "norm" in type(module).__name__.lower() and not isinstance(module, UnreadNorm)
    ]
    family.apply(policy)
    for handle in handles:
        handle.remove()
    return {name for name in seen if "q_norm" not in name and "k_norm" not in name}


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "vit", "deit", "llama", "glm4"])
def test_names_of_a_stack(name: str) -> None:
    names = [unit.name for unit in Family(name).blocks]
    assert names == [f"layer.{i}.{kind}" for i in range(LAYERS) for kind in ("attention", "feed_forward")]


def test_names_of_an_encoder_and_decoder() -> None:
    names = [unit.name for unit in Family("t5").structure.units]
    encoder = [f"encoder.layer.{i}.{kind}" for i in range(LAYERS) for kind in ("attention", "feed_forward")]
    kinds = ("attention", "cross_attention", "feed_forward")
    assert names == encoder + [f"decoder.layer.{i}.{kind}" for i in range(LAYERS) for kind in kinds]


@pytest.mark.parametrize("name", ["llama", "glm"])
def test_groups_of_a_decoder_are_key_value_heads(name: str) -> None:
    attention, feed_forward = Family(name).structure.units[:2]
    assert (attention.kind, attention.groups, attention.columns_per_group) == (UnitKind.ATTENTION, 2, 16)
    assert [producer.rows_per_group for producer in attention.producers] == [16, 8, 8]
    assert (feed_forward.groups, feed_forward.is_gated) == (48, True)


def test_a_fused_gate_is_cut_in_both_halves() -> None:
    family = Family("glm")
    unit = family.structure.units[1]
    (producer,) = unit.producers
    assert producer.rows([0, 5], unit.groups) == [0, 5, 48, 53]
    dense = family.model.get_submodule(producer.layer).weight.clone()
    family.apply(family.policy(_part))
    gate, up = family.model.get_submodule(producer.layer).weight.chunk(2)
    rows = (torch.cat([gate, up])[:, None] == dense).all(-1).int().argmax(1).tolist()
    assert [row + 48 for row in rows[: len(gate)]] == rows[len(gate) :]


def test_t5_layers_keep_different_heads_of_the_shared_bias() -> None:
    """The first layer makes the bias of all; cutting it, or leaving it out, must not cut the others' bias."""
    family = Family("t5")
    first, second = "encoder.layer.0.attention", "encoder.layer.1.attention"
    for keep_first, keep_second in ((1, 4), (4, 2), (2, 3), (0, 3)):
        policy = family.dense.replace(**{first: Choice(keep_first, "fp32"), second: Choice(keep_second, "fp32")})
        torch.testing.assert_close(family.apply(policy), _masked(family, policy), rtol=1e-4, atol=1e-4)


def test_cross_attention_has_moments_of_both_inputs() -> None:
    family = Family("t5")
    units = {unit.name: unit for unit in family.structure.units}
    unit = units["decoder.layer.1.cross_attention"]
    batch = len(family.inputs["input_ids"])
    call = StackedCalls(inputs=family.inputs, examples_per_call=batch, rows=tuple(range(batch)))
    moments = collect_moments(family.model, family.structure.units, [call])
    encoded = family.model.encoder(input_ids=family.inputs["input_ids"]).last_hidden_state.flatten(0, 1).double()
    query, key, value = (moments[producer.layer] for producer in unit.producers)
    torch.testing.assert_close(key.gram_KK[:-1, :-1], encoded.T @ encoded, rtol=1e-4, atol=1e-4)
    assert value.gram_FKK.equal(key.gram_FKK)
    assert (query.tokens, key.tokens) == (14, 18)


def test_a_structure_needs_no_weights() -> None:
    with torch.device("meta"):
        models = {name: make() for name, make in FAMILIES.items()}
    for name, model in models.items():
        structure = structure_of(model)
        assert structure == Family(name).structure
        dense = Policy({u.name: Choice(u.groups, "fp32") for u in structure.units})
        assert size_bytes(structure, dense) == 4 * sum(p.numel() for p in model.parameters())


def test_shared_parameters_count_once() -> None:
    tied, free = (Family(name).structure.fixed_bytes for name in ("llama, tied", "llama"))
    assert free - tied == 4 * 50 * 32


@pytest.mark.parametrize(
    ("name", "tokens", "longest"),
    [
        ("bert", None, 512),
        ("roberta", None, 510),
        ("distilbert", None, 512),
        ("vit", 10, 10),
        ("deit", 11, 11),
        ("glm", None, 64),
        ("t5", None, None),
    ],
)
def test_tokens(name: str, tokens: int | None, longest: int | None) -> None:
    structure = Family(name).structure
    assert (structure.tokens, structure.max_tokens) == (tokens, longest)


def test_every_transformer_is_tested_here() -> None:
    types = {make().config.model_type for make in FAMILIES.values()}
    assert types <= set(ARCHITECTURES)
    assert {"bert", "roberta", "distilbert", "vit", "deit", "llama", "glm", "glm4", "t5"} <= types


def test_unsupported_architecture_lists_the_supported_ones() -> None:
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8))
    with pytest.raises(UnsupportedModelError, match=r"type 'gpt2' are not supported; supported: bert, .*vit"):
        structure_of(model)


def test_a_model_that_is_built_otherwise_is_refused() -> None:
    bare = FAMILIES["bert"]().bert
    with pytest.raises(UnsupportedModelError, match="BertModel is not built as the architecture 'bert' expects"):
        structure_of(bare)


def test_widths_that_do_not_divide_are_refused() -> None:
    model: Any = FAMILIES["llama"]()
    model.config.num_key_value_heads = 3
    with pytest.raises(UnsupportedModelError, match=r"got 32 features for 3 groups"):
        structure_of(model)
