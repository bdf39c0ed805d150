"""Variants: what they hold, and keys that tell apart all that they are made from."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.quality import stack_calls
from evaluators.size import unit_bytes
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice
from workers.calibrate import Calibration
from workers.data import load_splits
from workers.model import LoadedModel, load_model
from workers.quantization.codes import pack_nibbles
from workers.variant_store import Variant, VariantStore
from workers.variants import Method, VariantMaker


@pytest.fixture(scope="module")
def examples(tiny_text: Any) -> Any:
    return load_splits(tiny_text.data, load_model(tiny_text.model).task, seed=0).calibration


@pytest.fixture(scope="module")
def maker_of(tiny_text: Any, examples: Any) -> Callable[..., VariantMaker]:
    """Returns a maker for the tiny model; the argument changes the model first."""

    def make(change: Callable[[LoadedModel], None] = lambda loaded: None, **fields: Any) -> VariantMaker:
        loaded = load_model(tiny_text.model)
        change(loaded)
        units = loaded.structure.units
        calls = stack_calls(loaded.task, fields.pop("examples", examples), batch=1)
        return VariantMaker(loaded.model, units, Calibration(units, calls, lambda: loaded.model), **fields)

    return make


@pytest.fixture(scope="module")
def maker(maker_of: Callable[..., VariantMaker]) -> VariantMaker:
    return maker_of()


@pytest.fixture(scope="module")
def units(tiny_text: Any) -> Any:
    return [unit for unit in load_model(tiny_text.model).structure.units if unit.producers]


def _equal(one: Variant, other: Variant) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


class TestMaker:
    @pytest.mark.parametrize("name", list(FORMATS))
    @pytest.mark.parametrize("keep_ratio", [1, 0.5, 0])
    def test_stored_bytes_are_those_of_the_size(
        self, maker: VariantMaker, units: Any, name: str, keep_ratio: float
    ) -> None:
        for unit in units[:2]:
            keep = int(unit.groups * keep_ratio)
            choice = Choice(keep, name if keep else "fp32")
            found = maker.make(unit, choice)
            target, total = FORMATS.get(choice.format), 0
            for key, tensor in found.items():
                part = key.rpartition("/")[2]
                if part == "codes" and target.weight_bits == 4:
                    padding = -tensor.shape[1] % target.group_size
                    tensor = pack_nibbles(torch.nn.functional.pad(tensor, (0, padding)))
                if part == "zeros":
                    tensor = pack_nibbles(tensor)
                total += tensor.numel() * tensor.element_size()
            assert total == unit_bytes(unit, choice)

    def test_result_does_not_depend_on_what_was_made_before(
        self, maker_of: Callable[..., VariantMaker], units: Any
    ) -> None:
        choices = [(unit, Choice(keep, name)) for unit in units[:2] for keep in (2, 3) for name in ("fp32", "w8a8")]
        one, other = maker_of(), maker_of()
        forth = [one.make(unit, choice) for unit, choice in choices]
        back = [other.make(unit, choice) for unit, choice in reversed(choices)]
        assert all(_equal(a, b) for a, b in zip(forth, reversed(back), strict=True))

    def test_without_data_nothing_is_solved(self, tiny_text: Any, units: Any) -> None:
        loaded = load_model(tiny_text.model)
        unit = units[1]
        found = VariantMaker(loaded.model, units, None).make(unit, Choice(16, "fp32"))
        dense = loaded.model.get_submodule(unit.consumer)
        columns = found[f"{unit.consumer}/weight"].T
        assert all(any(column.equal(other) for other in dense.weight.T) for column in columns)
        assert found[f"{unit.consumer}/bias"].equal(dense.bias)


class TestKey:
    def test_same_files_have_the_same_keys(
        self, maker: VariantMaker, maker_of: Callable[..., VariantMaker], units: Any
    ) -> None:
        other = maker_of()
        for unit in units:
            assert maker.key(unit, Choice(2, "w8a8")) == other.key(unit, Choice(2, "w8a8"))

    def test_keys_tell_units_and_choices_apart(self, maker: VariantMaker, units: Any) -> None:
        choices = [Choice(keep, name) for keep in (0, 1, 2) for name in FORMATS]
        keys = {maker.key(unit, choice) for unit in units for choice in choices}
        assert len(keys) == len(units) * len(choices)

    @pytest.mark.parametrize(
        "changed",
        [
            "bert.embeddings.word_embeddings",
            "bert.encoder.layer.0.output.LayerNorm",
            "bert.encoder.layer.1.output.dense",
        ],
    )
    def test_fine_tunes_never_share(
        self, maker: VariantMaker, maker_of: Callable[..., VariantMaker], units: Any, changed: str
    ) -> None:
        """A unit's own weights may be equal where its inputs are not: all weights of the model count."""

        def nudge(loaded: LoadedModel) -> None:
            loaded.model.get_submodule(changed).weight[0] += 1e-3

        other = maker_of(nudge)
        assert not {maker.key(u, Choice(2, "w8a8")) for u in units} & {other.key(u, Choice(2, "w8a8")) for u in units}

    def test_data_and_method_count(
        self, maker: VariantMaker, maker_of: Callable[..., VariantMaker], examples: Any, units: Any
    ) -> None:
        others = [
            maker_of(examples=examples[:-1]),
            *(maker_of(method=m) for m in (Method(update=False), Method(fisher=False), Method(gptq=False))),
        ]
        keys = [m.key(units[0], Choice(2, "w4")) for m in (maker, *others)]
        assert len(set(keys)) == len(keys)

    def test_a_format_that_changed_its_meaning_counts(
        self, maker: VariantMaker, units: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = maker.key(units[0], Choice(2, "w4"))
        changed = dataclasses.replace(FORMATS.get("w4"), group_size=64)
        monkeypatch.setitem(FORMATS._entries, "w4", changed)
        assert maker.key(units[0], Choice(2, "w4")) != before


def test_two_fine_tunes_of_the_same_name_never_share(tiny_text: Any, examples: Any, units: Any, tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 1)):
        folder = tmp_path / str(number) / "model"
        shutil.copytree(tiny_text.model.id, folder)
        loaded = load_model(tiny_text.model.model_copy(update={"id": str(folder)}))
        torch.manual_seed(seed)
        loaded.model.bert.embeddings.word_embeddings.weight.add_(
            torch.randn_like(loaded.model.bert.embeddings.word_embeddings.weight) * 0.1
        )
        calls = stack_calls(loaded.task, examples, batch=1)
        maker = VariantMaker(loaded.model, units, Calibration(units, calls, lambda m=loaded.model: m))
        found.append(VariantStore(tmp_path / "store").get_or_make(maker, units[1], Choice(16, "w4")))
    assert not _equal(*found)
    assert len(list((tmp_path / "store").iterdir())) == 2
