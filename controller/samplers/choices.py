"""A search space as numbers: units, the options of each, and what every option costs."""

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.front import cost_bounds, cost_value
from controller.job import Constraints, Objective
from controller.samplers.context import SamplerContext
from evaluators.additive import AdditiveCosts
from evaluators.costs import CostModel
from evaluators.latency.policy_table import PolicyTable
from evaluators.scores import Costs
from search_spaces.policy import Choice
from search_spaces.space import FORMAT_SUFFIX, KEEP_SUFFIX, SearchSpace, UnitSpace
from search_spaces.units import Unit

Floats = npt.NDArray[np.float64]
Options = npt.NDArray[np.int64]
"""Position of the option of each unit, shape (..., units)."""
Parameters = Mapping[str, Any]
CostsOf = Callable[[Parameters], Sequence[float]]
"""Exact costs of a point of the space, one for each cost objective, all to be small."""

COSTS = (Objective.LATENCY_MS, Objective.SIZE_BYTES)
"""Costs of every study's grid, in their order; those of `FURTHER_COSTS` that a study names come behind them."""
FURTHER_COSTS = (Objective.ENERGY_MJ, Objective.PEAK_MEMORY_BYTES)
"""Costs that only studies have which name them."""
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
        peaks: Positions of costs that are no sums over units. Estimates have them exactly; what an option adds is
            guessed from the policy in which every unit takes it.
    """

    def __init__(
        self,
        axes: Sequence[Mapping[str, Sequence[Any]]],
        costs_of: CostsOf,
        *,
        costs: int,
        excluded: Callable[[int, tuple[int, ...]], bool] = lambda unit, levels: False,
        shapes: Sequence[Hashable] | None = None,
        peaks: Sequence[int] = (),
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
        self.peaks = tuple(peaks)
        if self.peaks:
            self._guess_peaks()
        self._tables: dict[int, PolicyTable] = {}
        self._look_at_sums()

    def price_by(self, table: PolicyTable, *, cost: int) -> None:
        """Take one of the costs from a table: estimates have it exactly.

        What an option adds, and `base`, are those of a policy whose weights all stay in a cache, as far as the table
        tells of caches: so sums over units are bounds from below, and near in cheap policies, which a search is about.

        Args:
            table: Prices points of this grid.
            cost: Position of the cost.
        """
        singles = [(unit, option) for unit, count in enumerate(self.counts) for option in range(count)]
        points = np.zeros((len(singles), self.units), dtype=np.int64)
        for row, (unit, option) in enumerate(singles):
            points[row, unit] = option
        start = np.zeros(self.units, dtype=np.int64)
        least = float(table.latency_ms(start, working_set=0))
        for (unit, option), value in zip(singles, table.latency_ms(points, working_set=0), strict=True):
            self.increments[unit, option, cost] = value - least
        self.base[cost] = least
        self._tables[cost] = table
        self._look_at_sums()

    def exact(self, options: Options) -> Floats:
        """Return the costs of a point, shape (costs,)."""
        return np.asarray(self._costs_of(self.parameters(options)), dtype=np.float64)

    def estimate(self, options: Options) -> Floats:
        """Return the costs of points of shape (..., units): as sums over units, but those that a table prices."""
        found = self._additive.of(options)
        for cost, table in self._tables.items():
            found[..., cost] = table.latency_ms(options)
        if self.peaks:
            rows = options.reshape(-1, self.units)
            exact = np.array([self.exact(row)[list(self.peaks)] for row in rows])
            found[..., list(self.peaks)] = exact.reshape(*options.shape[:-1], len(self.peaks))
        return found

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

    def _guess_peaks(self) -> None:
        """Share out what the policy in which every unit takes an option differs in from the least lossy one."""
        peaks = list(self.peaks)
        by_levels: dict[tuple[int, ...], Floats] = {}
        for unit, options in enumerate(self.options):
            for number, option in enumerate(options):
                if option.levels not in by_levels:
                    alike = [self._alike(other, option.levels) for other in range(self.units)]
                    by_levels[option.levels] = self.exact(np.array(alike, dtype=np.int64)) - self.base
                self.increments[unit, number, peaks] = by_levels[option.levels][peaks] / self.units

    def _alike(self, unit: int, levels: tuple[int, ...]) -> int:
        """Position of a unit's option of some levels; its least lossy one where it has none."""
        return next((i for i, option in enumerate(self.options[unit]) if option.levels == levels), 0)

    def _look_at_sums(self) -> None:
        """Add up what options add, and see on some points how far that goes."""
        self._additive = AdditiveCosts(self.base, self.increments)
        points = np.random.default_rng(0).integers(self.counts, size=(_CHECKS, self.units))
        exact = np.array([self.exact(point) for point in points])
        self.is_additive = _are_equal(self._additive.of(points), exact)
        """Whether all costs are `base` and the sum of `increments`."""
        self.is_exact = _are_equal(self.estimate(points), exact)
        """Whether estimates are exact."""


def _are_equal(found: Floats, exact: Floats) -> bool:
    return bool(np.all(np.abs(found - exact) <= _ADDITIVE * np.abs(exact)))


def grid_of(context: SamplerContext) -> ChoiceGrid:
    """Return a study's space as a grid; its costs are those of `costs_of_study`."""
    space, named = context.space, costs_of_study(context)

    def costs_of(parameters: Parameters) -> list[float]:
        costs = context.cost_of(space.from_parameters({name: parameters[name] for name in space.parameters()}))
        return costs_in_order(costs, named)

    axes = [_axes_of(space, number) for number in range(len(space.unit_spaces))]

    def excluded(unit: int, levels: tuple[int, ...]) -> bool:
        keeps = axes[unit].get(space.unit_spaces[unit].unit.name + KEEP_SUFFIX)
        return keeps is not None and keeps[levels[0]] == 0 and any(levels[1:])

    shapes = [_shape_of(unit_space) for unit_space in space.unit_spaces]
    peaks = [position for position, cost in enumerate(named) if cost is Objective.PEAK_MEMORY_BYTES]
    grid = ChoiceGrid(axes, costs_of, costs=len(named), excluded=excluded, shapes=shapes, peaks=peaks)
    if isinstance(context.cost_of, CostModel):
        table = context.cost_of.latency_table(_choices_of(grid, space))
        grid.price_by(table, cost=named.index(Objective.LATENCY_MS))
    return grid


def _choices_of(grid: ChoiceGrid, space: SearchSpace) -> dict[str, list[Choice]]:
    """The choice that each option of a unit is, by the unit's name."""
    found: dict[str, list[Choice]] = {}
    for number, unit_space in enumerate(space.unit_spaces):
        points = np.zeros((grid.counts[number], grid.units), dtype=np.int64)
        points[:, number] = range(grid.counts[number])
        name = unit_space.unit.name
        found[name] = [space.from_parameters(grid.parameters(point))[name] for point in points]
    return found


def costs_of_study(context: SamplerContext) -> tuple[Objective, ...]:
    """Return the costs of a study's grid: latency and size always, others where they are objectives or bounded."""
    bounded = cost_bounds(context.constraints)
    return (*COSTS, *(cost for cost in FURTHER_COSTS if cost in context.objectives or cost in bounded))


def costs_in_order(costs: Costs, order: Sequence[Objective] = COSTS) -> list[float]:
    """Return costs in an order."""
    return [cost_value(costs, cost) for cost in order]


def bounds_in_order(constraints: Constraints, order: Sequence[Objective] = COSTS) -> list[float]:
    """Return the declared bounds in an order of costs; infinite where there is none."""
    bounds = cost_bounds(constraints)
    return [bounds.get(cost, float("inf")) for cost in order]


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
