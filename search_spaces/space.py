"""The search space: units of a model times the choices that a job declares for them."""

import fnmatch
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, field_validator

from search_spaces.formats import FORMATS, LayerType
from search_spaces.policy import Choice, Policy, PolicyError
from search_spaces.registry import RegistryError
from search_spaces.units import ModelStructure, Unit

KEEP_SUFFIX = ":keep"
FORMAT_SUFFIX = ":format"


class SpaceError(ValueError):
    """The declared space does not fit the model or the target."""


def _check_keep(keep: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if keep is not None and any(not 0 <= ratio <= 1 for ratio in keep):
        raise ValueError(f"keep ratios lie between 0 and 1; got {list(keep)}")
    return keep


def _check_formats(formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for name in formats or ():
        try:
            FORMATS.get(name)
        except RegistryError as error:
            raise ValueError(str(error)) from error
    return formats


class Override(BaseModel):
    """Other choices for the units that a glob names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    units: str = Field(min_length=1)
    """Glob over unit names ("layer.0.*")."""
    keep: tuple[float, ...] | None = Field(default=None, min_length=1)
    """Keep ratios, 0 to 1; None takes those of the space."""
    formats: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Formats; None takes those of the space."""

    _keep_in_range = field_validator("keep")(_check_keep)
    _formats_known = field_validator("formats")(_check_formats)


class SpaceConfig(BaseModel):
    """Which choices every unit has."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    keep: tuple[float, ...] = Field(default=(1.0, 0.75, 0.5, 0.25, 0.0), min_length=1)
    """Keep ratios, 0 to 1; 0 leaves a residual branch out."""
    formats: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Formats; None takes every format of the target that has a kernel on the device that latencies are for."""
    exclude: tuple[str, ...] = ()
    """Globs over unit names that stay whole and in the base format."""
    override: tuple[Override, ...] = ()
    """Other choices for some units; where several globs match, the last one wins."""

    _keep_in_range = field_validator("keep")(_check_keep)
    _formats_known = field_validator("formats")(_check_formats)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpace:
    """The choices of one unit: a grid of counts and formats.

    Attributes:
        unit: The unit.
        keeps: Group counts, descending.
        formats: Format names.
    """

    unit: Unit
    keeps: tuple[int, ...]
    formats: tuple[str, ...]

    def choices(self, base_format: str) -> tuple[Choice, ...]:
        """All different choices; keep 0 occurs once, in the base format."""
        grid = [Choice(keep, name) for keep in self.keeps if keep for name in self.formats]
        return (*grid, *([Choice(0, base_format)] if 0 in self.keeps else []))


class _ChoiceTable:
    """A unit's choices, made once: the policies of a long search share them, and looking one up is quick."""

    def __init__(self, space: UnitSpace, base_format: str) -> None:
        name = space.unit.name
        self.space = space
        self.choices = space.choices(base_format)
        self.offered = frozenset(self.choices)
        self.keep_parameter, self.format_parameter = name + KEEP_SUFFIX, name + FORMAT_SUFFIX
        known = {(choice.keep, choice.format): choice for choice in self.choices}
        self._by_values: dict[tuple[int | str, int | str], Choice] = {
            (keep, format_name): known[keep, format_name if keep else base_format]
            for keep in space.keeps
            for format_name in space.formats
        }

    def read(self, parameters: Mapping[str, int | str]) -> Choice | None:
        """Return the choice that the parameters name; None where they name none."""
        keep = parameters.get(self.keep_parameter, self.space.keeps[0])
        return self._by_values.get((keep, parameters.get(self.format_parameter, self.space.formats[0])))

    def values_in(self, parameters: Mapping[str, int | str]) -> dict[str, int | str]:
        """Return those of the parameters that are the unit's."""
        return {key: parameters[key] for key in (self.keep_parameter, self.format_parameter) if key in parameters}

    @property
    def offer(self) -> str:
        """What there is to choose, for messages."""
        return f"it keeps one of {list(self.space.keeps)} in one of {list(self.space.formats)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """All policies that a study may propose.

    Attributes:
        structure: The model that the space belongs to.
        unit_spaces: Choices by unit, in the model's order.
        size: Number of different policies.
    """

    structure: ModelStructure
    unit_spaces: tuple[UnitSpace, ...]
    size: int = field(init=False, repr=False, compare=False)
    _tables: Mapping[str, _ChoiceTable] = field(init=False, repr=False, compare=False)
    _parameters: Mapping[str, tuple[int, ...] | tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables = {space.unit.name: _ChoiceTable(space, self.base_format) for space in self.unit_spaces}
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "size", math.prod(len(table.choices) for table in tables.values()))
        object.__setattr__(self, "_parameters", _parameters_of(self.unit_spaces))

    @property
    def base_format(self) -> str:
        """Format of whatever is not quantized."""
        return self.structure.base_format

    def choices(self, unit: str) -> tuple[Choice, ...]:
        """All choices of the unit."""
        return self._tables[unit].choices

    def contains(self, policy: Policy) -> bool:
        """Whether every choice of a policy of the model is offered; the dense one's may not be."""
        return all(policy[name] in table.offered for name, table in self._tables.items())

    def dense_policy(self) -> Policy:
        """Every unit whole and in the base format (the reference, whether or not the space contains it)."""
        return Policy({u.name: Choice(u.groups, self.base_format) for u in self.structure.units})

    def smallest_policy(self) -> Policy:
        """Every unit at its smallest keep and fewest bits."""
        return Policy(
            {
                name: min(table.choices, key=lambda c: (c.keep, FORMATS.get(c.format).weight_bits))
                for name, table in self._tables.items()
            }
        )

    def uniform_policies(self) -> dict[str, Policy]:
        """Policies that treat all units alike, by name: each format everywhere, each keep everywhere, and both.

        A unit that lacks the format or the ratio takes its nearest keep, or its first format.
        """
        formats = sorted({name for s in self.unit_spaces for name in s.formats})
        ratios = sorted({round(k / s.unit.groups, 2) for s in self.unit_spaces for k in s.keeps}, reverse=True)
        found: dict[str, Policy] = {}
        seen = {self.dense_policy()}
        for ratio in (r for r in ratios if r > 0):
            for name in formats:
                policy = Policy({s.unit.name: self._nearest(s, ratio, name) for s in self.unit_spaces})
                if policy not in seen:
                    seen.add(policy)
                    found[f"keep {ratio:g}, {name}"] = policy
        return found

    def _nearest(self, space: UnitSpace, ratio: float, name: str) -> Choice:
        keeps = [k for k in space.keeps if k] or list(space.keeps)
        keep = min(keeps, key=lambda k: abs(k / space.unit.groups - ratio))
        if keep == 0:
            return Choice(0, self.base_format)
        return Choice(keep, name if name in space.formats else space.formats[0])

    def random_policy(self, generator: random.Random) -> Policy:
        """Draw each unit's choice uniformly."""
        return Policy({name: generator.choice(table.choices) for name, table in self._tables.items()})

    def validate(self, policy: Policy) -> None:
        """Check that every choice is in the space, the dense policy always being so.

        Raises:
            PolicyError: Units are missing or unknown, or a choice is not offered.
        """
        if self._tables.keys() != policy.choices.keys():
            expected, got = set(self._tables), set(policy.choices)
            raise PolicyError(
                f"the policy lacks units {sorted(expected - got)} and has unknown units {sorted(got - expected)}"
            )
        for name, table in self._tables.items():
            choice, space = policy[name], table.space
            if choice not in table.offered and choice != Choice(space.unit.groups, self.base_format):
                raise PolicyError(f"{choice} is no choice of unit {name!r}; {table.offer}")

    def parameters(self) -> dict[str, tuple[int, ...] | tuple[str, ...]]:
        """Options of every parameter that has more than one, by parameter name, in the model's order.

        A unit gives up to two parameters, "<unit>:keep" (counts, descending) and "<unit>:format" (names).
        """
        return dict(self._parameters)

    def to_parameters(self, policy: Policy) -> dict[str, int | str]:
        """Write a policy as parameters; at keep 0 the format parameter is the unit's first format.

        Raises:
            PolicyError: The policy is not in the space, or is the dense one where the space does not offer it.
        """
        self.validate(policy)
        found: dict[str, int | str] = {}
        for name, table in self._tables.items():
            choice, space = policy[name], table.space
            if choice not in table.offered:
                raise PolicyError(
                    f"parameters express what the space offers; it keeps {list(space.keeps)} of unit "
                    f"{space.unit.name!r} in {list(space.formats)}; got the dense {choice}"
                )
            if len(space.keeps) > 1:
                found[table.keep_parameter] = choice.keep
            if len(space.formats) > 1:
                found[table.format_parameter] = choice.format if choice.keep else space.formats[0]
        return found

    def from_parameters(self, parameters: Mapping[str, int | str]) -> Policy:
        """Read a policy from parameters, the inverse of `to_parameters`.

        Raises:
            PolicyError: A parameter is missing, unknown, or has a value that is not offered.
        """
        expected = self._parameters.keys()
        if parameters.keys() != expected:
            raise PolicyError(
                f"a policy has one value for each parameter; missing {sorted(expected - parameters.keys())}, unknown "
                f"{sorted(parameters.keys() - expected)}; the space was declared otherwise when they were written"
            )
        choices = {}
        for name, table in self._tables.items():
            choice = table.read(parameters)
            if choice is None:
                raise PolicyError(f"{table.values_in(parameters)} is no choice of unit {name!r}; {table.offer}")
            choices[name] = choice
        return Policy(choices)


def _parameters_of(unit_spaces: Iterable[UnitSpace]) -> dict[str, tuple[int, ...] | tuple[str, ...]]:
    found: dict[str, tuple[int, ...] | tuple[str, ...]] = {}
    for space in unit_spaces:
        if len(space.keeps) > 1:
            found[space.unit.name + KEEP_SUFFIX] = space.keeps
        if len(space.formats) > 1:
            found[space.unit.name + FORMAT_SUFFIX] = space.formats
    return found


def build_space(
    structure: ModelStructure, config: SpaceConfig, *, target_formats: tuple[str, ...], channel_multiple: int
) -> SearchSpace:
    """Span the space of a model on a target.

    Args:
        structure: Units of the model.
        config: Declared choices.
        target_formats: Names of the formats that have a kernel on the target.
        channel_multiple: Widths are multiples of this.

    Raises:
        SpaceError: A format without a kernel, a glob that matches nothing, or a unit without a choice.
    """
    names = [unit.name for unit in structure.units]
    for glob in (*config.exclude, *(o.units for o in config.override)):
        if not fnmatch.filter(names, glob):
            raise SpaceError(f"{glob!r} matches no unit; the units are {', '.join(names)}")
    layer_types = {unit.layer_type for unit in structure.units}
    spaces = []
    for unit in structure.units:
        keep, formats = config.keep, config.formats or target_formats
        for override in config.override:
            if fnmatch.fnmatch(unit.name, override.units):
                keep, formats = override.keep or keep, override.formats or formats
        if any(fnmatch.fnmatch(unit.name, glob) for glob in config.exclude):
            keep, formats = (1.0,), (structure.base_format,)
        for name in formats:
            if name not in target_formats:
                raise SpaceError(
                    f"format {name!r} has no kernel on the target; choose from {', '.join(target_formats)}"
                )
        formats = _kernels_for(unit, formats, config.formats, layer_types, target_formats, structure.base_format)
        keeps = unit.counts(keep, channel_multiple=channel_multiple)
        if not keeps:
            raise SpaceError(
                f"unit {unit.name!r} is not residual, so it can't be left out; got keep={list(keep)}; "
                "add a ratio above 0"
            )
        spaces.append(UnitSpace(unit=unit, keeps=keeps, formats=tuple(dict.fromkeys(formats))))
    return SearchSpace(structure=structure, unit_spaces=tuple(spaces))


def _kernels_for(
    unit: Unit,
    formats: tuple[str, ...],
    declared: tuple[str, ...] | None,
    layer_types: set[LayerType],
    target_formats: tuple[str, ...],
    base_format: str,
) -> tuple[str, ...]:
    """Those of the formats that have kernels for the unit's layers; a table that has none keeps the base format.

    Raises:
        SpaceError: There is none, or one was declared that fits no unit of the model.
    """
    useless = [name for name in declared or () if not layer_types & set(FORMATS.get(name).layer_types)]
    found = tuple(name for name in formats if unit.layer_type in FORMATS.get(name).layer_types)
    if not found and unit.layer_type is LayerType.EMBEDDING:
        found = (base_format,)
    if useless or not found:
        fitting = [name for name in target_formats if unit.layer_type in FORMATS.get(name).layer_types]
        raise SpaceError(
            f"formats have kernels for the layers of the model; {(useless or list(formats))[0]!r} has none for the "
            f"{unit.layer_type.value} layers of unit {unit.name!r}; choose from {', '.join(fitting)}"
        )
    return found
