"""A search space as numbers: units, the options of each, and what every option costs."""

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.job import Constraints, Objective
from controller.samplers.context import SamplerContext
from evaluators.additive import AdditiveCosts
from evaluators.scores import Costs
from search_spaces.space import FORMAT_SUFFIX, KEEP_SUFFIX, SearchSpace, UnitSpace
from search_spaces.units import Unit

Floats = npt.NDArray[np.float64]
Options = npt.NDArray[np.int64]
"""Position of the option of each unit, shape (..., units)."""
Parameters = Mapping[str, Any]
CostsOf = Callable[[Parameters], Sequence[float]]
"""Exact costs of a point of the space, one for each cost objective, all to be small."""

COSTS = (Objective.LATENCY_MS, Objective.SIZE_BYTES)
"""Costs of a study's grid, in their order."""
_ADDITIVE = 1e-6
_CHECKS = 4


@dataclass(frozen=True, slots=True)
class Option:
    """One way to treat a unit.

    Attributes:
        parameters: Values of the unit's parameters.
        levels: Position of each parameter's value on its axis, 0 being the one that loses least.
    """

    parameters: Parameters
    levels: tuple[int, ...]


class ChoiceGrid:
    """Units with their options; the first option of each loses least.

    Args:
        axes: For each unit its parameters with their values, the least lossy first.
        costs_of: Exact costs of a point.
        costs: How many costs there are.
        excluded: Whether levels of a unit's parameters say the same as an earlier option of the unit (its index, the
            levels); such options are left out.
        shapes: For each unit all that its costs depend on: units of equal shape are asked for once. None asks for each.
    """

    def __init__(
        self,
        axes: Sequence[Mapping[str, Sequence[Any]]],
        costs_of: CostsOf,
        *,
        costs: int,
        excluded: Callable[[int, tuple[int, ...]], bool] = lambda unit, levels: False,
        shapes: Sequence[Hashable] | None = None,
    ) -> None:
        self.axes = [{name: tuple(values) for name, values in unit.items()} for unit in axes]
        self.options = [self._options(number, excluded) for number in range(len(self.axes))]
        self.units = len(self.options)
        self.costs = costs
        self._costs_of = costs_of
        self._index = [{tuple(o.parameters.values()): i for i, o in enumerate(found)} for found in self.options]
        self.counts = np.array([len(found) for found in self.options])
        self.width = int(self.counts.max(initial=1))
        self.base = self.exact(np.zeros(self.units, dtype=np.int64))
        self.increments = self._increments(range(self.units) if shapes is None else shapes)
        """What an option adds to `base`, shape (units, options of the widest unit, costs); NaN where there is none."""
        self._additive = AdditiveCosts(self.base, self.increments)
        self.is_additive = self._is_additive()

    def exact(self, options: Options) -> Floats:
        """Return the costs of a point, shape (costs,)."""
        return np.asarray(self._costs_of(self.parameters(options)), dtype=np.float64)

    def estimate(self, options: Options) -> Floats:
        """Return the costs of points of shape (..., units) as sums over units; exact where the space is additive."""
        return self._additive.of(options)

    def parameters(self, options: Options) -> dict[str, Any]:
        """Write a point as parameters."""
        found: dict[str, Any] = {}
        for unit, option in enumerate(options):
            found.update(self.options[unit][int(option)].parameters)
        return found

    def read(self, parameters: Parameters) -> Options | None:
        """Read a point from parameters; None where it lies outside."""
        found = np.zeros(self.units, dtype=np.int64)
        for unit, axes in enumerate(self.axes):
            try:
                values = tuple(parameters[name] for name in axes)
            except KeyError:
                return None
            option = self._index[unit].get(values)
            if option is None:
                option = self._same_levels(unit, values)
            if option is None:
                return None
            found[unit] = option
        return found

    def _same_levels(self, unit: int, values: tuple[Any, ...]) -> int | None:
        """Return the option that says the same as an excluded one: the one with the same first parameter."""
        return next((i for known, i in self._index[unit].items() if known[:1] == values[:1]), None)

    def _options(self, unit: int, excluded: Callable[[int, tuple[int, ...]], bool]) -> list[Option]:
        axes = self.axes[unit]
        levels = itertools.product(*(range(len(values)) for values in axes.values()))
        return [
            Option({name: values[level] for (name, values), level in zip(axes.items(), chosen, strict=True)}, chosen)
            for chosen in levels
            if not excluded(unit, chosen)
        ]

    def _increments(self, shapes: Sequence[Hashable]) -> Floats:
        found = np.full((self.units, self.width, self.costs), np.nan)
        first: dict[Hashable, int] = {}
        point = np.zeros(self.units, dtype=np.int64)
        for unit, shape in enumerate(shapes):
            alike = first.setdefault(shape, unit)
            if alike != unit:
                found[unit] = found[alike]
                continue
            for option in range(1, len(self.options[unit])):
                point[unit] = option
                found[unit, option] = self.exact(point) - self.base
            found[unit, 0] = 0.0
            point[unit] = 0
        return found

    def _is_additive(self) -> bool:
        generator = np.random.default_rng(0)
        for _ in range(_CHECKS):
            point = generator.integers(self.counts)
            exact = self.exact(point)
            if np.any(np.abs(self.estimate(point) - exact) > _ADDITIVE * np.abs(exact)):
                return False
        return True


def grid_of(context: SamplerContext) -> ChoiceGrid:
    """Return a study's space as a grid; its costs are those of `COSTS`, whether or not they are objectives."""
    space = context.space

    def costs_of(parameters: Parameters) -> list[float]:
        costs = context.cost_of(space.from_parameters({name: parameters[name] for name in space.parameters()}))
        return costs_in_order(costs)

    axes = [_axes_of(space, number) for number in range(len(space.unit_spaces))]

    def excluded(unit: int, levels: tuple[int, ...]) -> bool:
        keeps = axes[unit].get(space.unit_spaces[unit].unit.name + KEEP_SUFFIX)
        return keeps is not None and keeps[levels[0]] == 0 and any(levels[1:])

    shapes = [_shape_of(unit_space) for unit_space in space.unit_spaces]
    return ChoiceGrid(axes, costs_of, costs=len(COSTS), excluded=excluded, shapes=shapes)


def costs_in_order(costs: Costs) -> list[float]:
    """Return costs in the order of `COSTS`."""
    return [costs.latency_ms, float(costs.size_bytes)]


def bounds_in_order(constraints: Constraints) -> list[float]:
    """Return the declared bounds in the order of `COSTS`; infinite where there is none."""
    declared = (constraints.max_latency_ms, constraints.max_size_bytes)
    return [float("inf") if bound is None else float(bound) for bound in declared]


def _shape_of(unit_space: UnitSpace) -> Hashable:
    """All that the costs of a unit's choices depend on; units that share layers are each a case of their own."""
    unit = unit_space.unit
    if type(unit) is not Unit:
        return unit.name
    producers = tuple(replace(producer, layer="") for producer in unit.producers)
    alike = replace(unit, name="", producers=producers, consumer="", branch=None, selection=None)
    return alike, unit.branch is None, unit_space.keeps, unit_space.formats


def _axes_of(space: SearchSpace, number: int) -> dict[str, tuple[Any, ...]]:
    unit_space = space.unit_spaces[number]
    name = unit_space.unit.name
    formats = sorted(unit_space.formats, key=lambda f: f != space.base_format)
    axes: dict[str, tuple[Any, ...]] = {}
    if len(unit_space.keeps) > 1:
        axes[name + KEEP_SUFFIX] = tuple(sorted(unit_space.keeps, reverse=True))
    if len(formats) > 1:
        axes[name + FORMAT_SUFFIX] = tuple(formats)
    return axes
