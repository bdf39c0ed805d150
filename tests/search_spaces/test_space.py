"""The space: what a job declares, and lossless ways between policies and parameters."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy, PolicyError
from search_spaces.space import Override, SearchSpace, SpaceConfig, SpaceError, UnitSpace, build_space
from search_spaces.units import Branch, ModelStructure, Producer, Unit, UnitKind

TARGET = ("fp32", "w8a8", "w4", "w4g128")


def _unit(name: str, groups: int, *, residual: bool = True) -> Unit:
    return Unit(
        name=name,
        kind=UnitKind.FEED_FORWARD,
        groups=groups,
        producers=(Producer(layer=f"{name}.up", rows_per_group=8),),
        consumer=f"{name}.down",
        columns_per_group=8,
        in_features=16,
        out_features=16,
        branch=Branch(module=name) if residual else None,
        activation="gelu",
    )


def _structure(units: int = 4, *, residual: bool = True) -> ModelStructure:
    names = [f"layer.{i // 2}.{('attention', 'feed_forward')[i % 2]}" for i in range(units)]
    found = tuple(_unit(name, 4, residual=residual) for name in names)
    return ModelStructure(architecture="toy", units=found, fixed=(), fixed_bytes=0)


def _space(structure: ModelStructure | None = None, **fields: Any) -> SearchSpace:
    return build_space(structure or _structure(), SpaceConfig(**fields), target_formats=TARGET, channel_multiple=8)


@st.composite
def spaces(draw: st.DrawFn, *, most_units: int = 5) -> SearchSpace:
    unit_spaces = []
    for index in range(draw(st.integers(1, most_units))):
        groups = draw(st.integers(1, 6))
        keeps = draw(st.sets(st.integers(0, groups), min_size=1, max_size=4))
        formats = draw(st.lists(st.sampled_from(TARGET), min_size=1, max_size=3, unique=True))
        unit = _unit(f"layer.{index}", groups)
        unit_spaces.append(UnitSpace(unit=unit, keeps=tuple(sorted(keeps, reverse=True)), formats=tuple(formats)))
    structure = ModelStructure(architecture="toy", units=tuple(s.unit for s in unit_spaces), fixed=(), fixed_bytes=0)
    return SearchSpace(structure=structure, unit_spaces=tuple(unit_spaces))


class TestParameters:
    @given(spaces(), st.integers(0, 10**9))
    def test_policy_to_parameters_and_back(self, space: SearchSpace, seed: int) -> None:
        policy = space.random_policy(random.Random(seed))
        parameters = space.to_parameters(policy)
        assert parameters.keys() == space.parameters().keys()
        assert all(value in space.parameters()[name] for name, value in parameters.items())
        assert space.from_parameters(parameters) == policy

    @given(spaces(), st.data())
    def test_any_parameters_give_a_policy_of_the_space(self, space: SearchSpace, data: st.DataObject) -> None:
        parameters = {name: data.draw(st.sampled_from(options)) for name, options in space.parameters().items()}
        policy = space.from_parameters(parameters)
        space.validate(policy)
        for unit_space in space.unit_spaces:
            choice = policy[unit_space.unit.name]
            assert choice.keep or choice.format == "fp32"
        again = space.to_parameters(policy)
        assert space.from_parameters(again) == policy
        different = {name for name in parameters if parameters[name] != again[name]}
        assert all(name.endswith(":format") and policy[name.removesuffix(":format")].keep == 0 for name in different)

    def test_names_and_options(self) -> None:
        space = _space(_structure(2), keep=(1, 0.5, 0), formats=("w8a8", "w4"), exclude=("*.feed_forward",))
        assert space.parameters() == {
            "layer.0.attention:keep": (4, 2, 0),
            "layer.0.attention:format": ("w8a8", "w4"),
        }
        policy = Policy({"layer.0.attention": Choice(0, "fp32"), "layer.0.feed_forward": Choice(4, "fp32")})
        assert space.to_parameters(policy) == {"layer.0.attention:keep": 0, "layer.0.attention:format": "w8a8"}

    def test_missing_unknown_and_foreign_values_are_refused(self) -> None:
        space = _space(_structure(1))
        good = space.to_parameters(space.dense_policy())
        with pytest.raises(PolicyError, match=r"missing \['layer\.0\.attention:keep'\]"):
            space.from_parameters({name: v for name, v in good.items() if not name.endswith("keep")})
        with pytest.raises(PolicyError, match=r"unknown \['layer\.9:keep'\]"):
            space.from_parameters({**good, "layer.9:keep": 1})
        with pytest.raises(PolicyError, match="is no choice of unit"):
            space.from_parameters({**good, "layer.0.attention:keep": 7})

    def test_dense_policy_outside_the_space_has_no_parameters(self) -> None:
        """It would come back as another policy where a unit has a single keep."""
        space = _space(_structure(1), keep=(0.5,))
        space.validate(space.dense_policy())
        with pytest.raises(PolicyError, match=r"keeps \[2\] of unit 'layer\.0\.attention'"):
            space.to_parameters(space.dense_policy())


class TestSize:
    @given(spaces(most_units=3))
    def test_size_counts_different_policies(self, space: SearchSpace) -> None:
        grids = [
            [Choice(keep, name if keep else "fp32") for keep in s.keeps for name in s.formats]
            for s in space.unit_spaces
        ]
        names = [s.unit.name for s in space.unit_spaces]
        policies = {Policy(dict(zip(names, choices, strict=True))).digest for choices in itertools.product(*grids)}
        assert space.size == len(policies)

    @given(spaces(most_units=3))
    def test_choices_are_different_and_valid(self, space: SearchSpace) -> None:
        for unit_space in space.unit_spaces:
            choices = space.choices(unit_space.unit.name)
            assert len(set(choices)) == len(choices)
            assert sum(choice.keep == 0 for choice in choices) == (0 in unit_space.keeps)


class TestConfig:
    def test_defaults_take_every_format_of_the_target(self) -> None:
        for unit_space in _space().unit_spaces:
            assert unit_space.keeps == (4, 3, 2, 1, 0)
            assert unit_space.formats == TARGET

    def test_exclude_keeps_units_whole_in_the_base_format(self) -> None:
        space = _space(exclude=("layer.0.*",))
        assert space.choices("layer.0.attention") == (Choice(4, "fp32"),)
        assert space.choices("layer.0.feed_forward") == (Choice(4, "fp32"),)
        assert len(space.choices("layer.1.attention")) == 17

    def test_exclude_wins_over_override(self) -> None:
        space = _space(exclude=("layer.0.attention",), override=(Override(units="*", keep=(0.5,)),))
        assert space.choices("layer.0.attention") == (Choice(4, "fp32"),)

    def test_last_override_wins_field_by_field(self) -> None:
        space = _space(
            keep=(1,),
            formats=("fp32",),
            override=(
                Override(units="*.attention", keep=(1, 0.5), formats=("w8a8",)),
                Override(units="layer.1.*", formats=("w4", "w4")),
            ),
        )
        found = {s.unit.name: (s.keeps, s.formats) for s in space.unit_spaces}
        assert found == {
            "layer.0.attention": ((4, 2), ("w8a8",)),
            "layer.0.feed_forward": ((4,), ("fp32",)),
            "layer.1.attention": ((4, 2), ("w4",)),
            "layer.1.feed_forward": ((4,), ("w4",)),
        }

    @pytest.mark.parametrize("fields", [{"exclude": ("layer.7.*",)}, {"override": (Override(units="layer.7.*"),)}])
    def test_globs_that_match_nothing_are_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(SpaceError, match=r"'layer\.7\.\*' matches no unit; the units are layer\.0\.attention, "):
            _space(**fields)

    def test_formats_without_a_kernel_are_refused(self) -> None:
        with pytest.raises(SpaceError, match="format 'w4' has no kernel on the target; choose from fp32, w8a8"):
            build_space(_structure(), SpaceConfig(formats=("w4",)), target_formats=("fp32", "w8a8"), channel_multiple=8)

    def test_units_that_can_not_be_left_out_need_a_ratio_above_zero(self) -> None:
        structure = _structure(1, residual=False)
        assert _space(structure, keep=(1, 0)).choices("layer.0.attention") == tuple(Choice(4, n) for n in TARGET)
        with pytest.raises(SpaceError, match=r"not residual, so it can't be left out; got keep=\[0\.0\]"):
            _space(structure, keep=(0,))

    @pytest.mark.parametrize("keep", [(1.5,), (-0.1,), (float("nan"),), (1, 2)])
    def test_ratios_outside_their_range_are_refused(self, keep: tuple[float, ...]) -> None:
        with pytest.raises(ValidationError, match="keep ratios lie between 0 and 1"):
            SpaceConfig(keep=keep)
        with pytest.raises(ValidationError, match="keep ratios lie between 0 and 1"):
            Override(units="*", keep=keep)

    def test_empty_lists_and_unknown_formats_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="at least 1 item"):
            SpaceConfig(keep=())
        with pytest.raises(ValidationError, match=r"unknown format 'int3'; supported: bf16, fp16, fp32, .*w8a8"):
            SpaceConfig(formats=("int3",))


class TestPolicies:
    @given(spaces())
    def test_special_policies_are_valid(self, space: SearchSpace) -> None:
        uniform = space.uniform_policies()
        for policy in (space.dense_policy(), space.smallest_policy(), *uniform.values()):
            space.validate(policy)
        assert len(set(uniform.values())) == len(uniform)
        assert space.dense_policy() not in uniform.values()

    def test_uniform_policies_by_hand(self) -> None:
        space = _space(_structure(2), keep=(1, 0.5, 0), formats=("fp32", "w8a8"), exclude=("*.feed_forward",))
        dense = space.dense_policy()
        assert space.uniform_policies() == {
            "keep 1, w8a8": dense.replace(**{"layer.0.attention": Choice(4, "w8a8")}),
            "keep 0.5, fp32": dense.replace(**{"layer.0.attention": Choice(2, "fp32")}),
            "keep 0.5, w8a8": dense.replace(**{"layer.0.attention": Choice(2, "w8a8")}),
        }

    def test_smallest_policy_has_fewest_groups_then_bits(self) -> None:
        space = _space(_structure(2), keep=(1, 0.5), formats=("fp32", "w8a8", "w4"))
        assert set(space.smallest_policy().choices.values()) == {Choice(2, "w4")}
        assert set(_space(_structure(2)).smallest_policy().choices.values()) == {Choice(0, "fp32")}

    def test_random_policies_reach_every_choice(self) -> None:
        space, generator = _space(_structure(1), keep=(1, 0), formats=("fp32", "w8a8")), random.Random(0)
        drawn = {space.random_policy(generator) for _ in range(100)}
        assert len(drawn) == space.size == 3

    def test_units_must_match(self) -> None:
        space = _space(_structure(2))
        with pytest.raises(PolicyError, match=r"lacks units \['layer\.0\.feed_forward'\].*unknown units \['other'\]"):
            space.validate(Policy({"layer.0.attention": Choice(4, "fp32"), "other": Choice(4, "fp32")}))


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "shape", "expected"),
        [
            ("fp32", (10, 64), 10 * 64 * 4),
            ("w8a8", (10, 64), 10 * 64 + 10 * 4),
            ("w4", (10, 64), 10 * 32 + 10 * 2 * 4 + 10),
            ("w4", (10, 65), 10 * 48 + 10 * 3 * 4 + 10 * 2),
            ("w4g128", (10, 64), 10 * 64 + 10 * 4 + 10),
        ],
    )
    def test_weight_bytes_by_hand(self, name: str, shape: tuple[int, int], expected: int) -> None:
        assert FORMATS.get(name).weight_bytes(*shape) == expected
