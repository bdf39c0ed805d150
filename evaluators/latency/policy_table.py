"""Latencies of many policies at once: what every choice of every unit costs, looked up before."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from evaluators.additive import AdditiveCosts, Floats, Options
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.workload import fixed_operators, sum_operators
from search_spaces.channels import ChannelLayer, ChannelUnit, cut_layer
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure, Unit, UnitKind


class PolicyTable:
    """Predicts latencies of policies that are written as one option a unit.

    The latencies are those of `LatencyPredictor.policy_ms`. A layer between two units of channels depends on the
    options of both, so that each such pair has a table of its own.

    Args:
        structure: Units of the model.
        predictor: Times on the target.
        choices: Options of each unit by its name; a point names them by their position.

    Raises:
        MissingEntryError: The table lacks an operator of the choices.
    """

    def __init__(
        self, structure: ModelStructure, predictor: LatencyPredictor, choices: Mapping[str, Sequence[Choice]]
    ) -> None:
        self.names = tuple(unit.name for unit in structure.units)
        self.choices = tuple(tuple(choices[name]) for name in self.names)
        self._predictor = predictor
        self._base_format = structure.base_format
        self._place = {name: number for number, name in enumerate(self.names)}
        terms: dict[tuple[int, ...], Floats] = defaultdict(lambda: np.zeros(1))
        for unit in structure.units:
            for places, times_ms in self._terms(unit):
                terms[places] = terms[places] + times_ms
        self._terms_of = tuple(terms)
        width = max((times_ms.size for times_ms in terms.values()), default=1)
        increments = np.full((len(terms), width, 1), np.nan)
        for number, times_ms in enumerate(terms.values()):
            increments[number, : times_ms.size, 0] = times_ms.ravel()
        self._costs = AdditiveCosts(np.array([predictor.fixed_ms(structure)]), increments)
        self._unread = tuple(self._unread_of(structure, kind) for kind in _readers(structure))

    def latency_ms(self, options: Options) -> Floats:
        """Return the latencies of points.

        Args:
            options: Position of the choice of each unit, (N, units).

        Returns:
            Latencies in milliseconds, (N,).

        Raises:
            IndexError: A unit does not have the option.
        """
        counts = np.array([len(offered) for offered in self.choices])
        if options.size and (np.any(options.min(axis=0) < 0) or np.any(options.max(axis=0) >= counts)):
            raise IndexError(
                f"an option is the position of one of the unit's choices; the units have {counts.tolist()}; "
                f"got positions from {options.min(axis=0).tolist()} to {options.max(axis=0).tolist()}"
            )
        return self._sum(options) - self._unread_ms(options)

    def policy(self, options: Options) -> Policy:
        """Return the policy of one point, (units,)."""
        return Policy({name: self.choices[place][int(options[place])] for name, place in self._place.items()})

    def _sum(self, options: Options) -> Floats:
        if self._terms_of == tuple((number,) for number in range(len(self.names))):
            return self._costs.of(options)[..., 0]
        columns = [
            options[..., places[0]]
            if len(places) == 1
            else options[..., places[0]] * len(self.choices[places[1]]) + options[..., places[1]]
            for places in self._terms_of
        ]
        return self._costs.of(np.stack(columns, axis=-1))[..., 0]

    def _unread_ms(self, options: Options) -> Floats:
        """What fixed parts take that the points leave nothing to read, (N,)."""
        found = np.zeros(options.shape[:-1])
        for part_ms, places, left_out in self._unread:
            gone = [left_out[number][options[..., place]] for number, place in enumerate(places)]
            found += part_ms * np.all(gone, axis=0)
        return found

    def _unread_of(
        self, structure: ModelStructure, kind: UnitKind
    ) -> tuple[float, tuple[int, ...], tuple[npt.NDArray[np.bool_], ...]]:
        """Time of the parts that units of a kind read, where those are, and which of their options leave them out."""
        parts = tuple(part for part in structure.fixed if part.only_for is kind)
        part_ms = self._predictor.operators_ms(
            fixed_operators(replace(structure, fixed=parts), self._predictor.workload).items()
        )
        places = tuple(self._place[unit.name] for unit in structure.units if unit.kind is kind)
        left_out = tuple(np.array([choice.keep == 0 for choice in self.choices[place]]) for place in places)
        return part_ms, places, left_out

    def _terms(self, unit: Unit) -> list[tuple[tuple[int, ...], Floats]]:
        """Times by the options of one or two units: the places of these units, and an array with an axis for each."""
        own = self._place[unit.name]
        if not isinstance(unit, ChannelUnit):
            times = [self._predictor.unit_ms(unit, choice) for choice in self.choices[own]]
            return [((own,), np.array(times))]
        sums = [
            self._predictor.operators_ms(sum_operators(unit, choice, self._predictor.workload).items())
            for choice in self.choices[own]
        ]
        return [((own,), np.array(sums)), *(self._layer_term(layer) for layer in unit.channel_layers)]

    def _layer_term(self, layer: ChannelLayer) -> tuple[tuple[int, ...], Floats]:
        sides = (layer.rows, layer.columns)
        names = tuple(dict.fromkeys(name for name in sides if name is not None))
        places = tuple(self._place[name] for name in names)
        times_ms = np.empty([len(self.choices[place]) for place in places])
        for options in np.ndindex(times_ms.shape):
            chosen = {name: self.choices[p][o] for name, p, o in zip(names, places, options, strict=True)}
            rows, columns = (None if name is None else chosen[name] for name in sides)
            times_ms[options] = self._predictor.layer_ms(cut_layer(layer, rows, columns, self._base_format))
        return places, times_ms


def _readers(structure: ModelStructure) -> tuple[UnitKind, ...]:
    """Kinds of units that alone read some fixed part."""
    return tuple(dict.fromkeys(part.only_for for part in structure.fixed if part.only_for is not None))
