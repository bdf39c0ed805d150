"""Latencies of many policies at once: what every choice of every unit takes, looked up before."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from evaluators.additive import AdditiveCosts, Floats, Options
from evaluators.latency.lookup import LatencyPredictor, Work
from evaluators.latency.workload import Operator, fixed_operators, layer_operators, sum_operators, unit_operators
from search_spaces.channels import ChannelLayer, ChannelUnit, cut_layer
from search_spaces.policy import Choice
from search_spaces.units import ModelStructure, Unit, UnitKind


class PolicyTable:
    """Predicts latencies of policies that are written as one option a unit.

    The latencies are those of `LatencyPredictor.policy_ms`. A layer between two units of channels depends on the
    options of both, so that each such pair has a table of its own. What units take is added up with their bytes of
    weights, which tell how much of it cache curves leave.

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
        self._names = tuple(unit.name for unit in structure.units)
        self._choices = tuple(tuple(choices[name]) for name in self._names)
        self._predictor = predictor
        self._base_format = structure.base_format
        self._place = {name: number for number, name in enumerate(self._names)}
        terms: dict[tuple[int, ...], Floats] = {}
        for unit in structure.units:
            for places, costs in self._terms(unit):
                terms[places] = terms[places] + costs if places in terms else costs
        self._terms_of = tuple(terms)
        fixed = _row(predictor.fixed_work(structure))
        width = max((costs[..., 0].size for costs in terms.values()), default=1)
        increments = np.full((len(terms), width, len(fixed)), np.nan)
        for number, costs in enumerate(terms.values()):
            rows = costs.reshape(-1, len(fixed))
            increments[number, : len(rows)] = rows
        self._costs = AdditiveCosts(fixed, increments)
        self._unread = tuple(self._unread_of(structure, kind) for kind in _readers(structure))

    def latency_ms(self, options: Options, *, working_set: float | None = None) -> Floats:
        """Return the latencies of points.

        Args:
            options: Position of the choice of each unit, (..., units).
            working_set: Bytes of weights that times hold for; None takes those of each point. With one for all,
                latencies are sums over units, or over units that share layers.

        Returns:
            Latencies in milliseconds, (...).

        Raises:
            IndexError: A unit does not have the option.
        """
        points_NU = options.reshape(-1, len(self._names))
        counts = np.array([len(offered) for offered in self._choices])
        if points_NU.size and (np.any(points_NU.min(axis=0) < 0) or np.any(points_NU.max(axis=0) >= counts)):
            raise IndexError(
                f"an option is the position of one of the unit's choices; the units have {counts.tolist()}; "
                f"got positions from {points_NU.min(axis=0).tolist()} to {points_NU.max(axis=0).tolist()}"
            )
        work_NT = self._work(points_NU)
        sizes_N = work_NT[:, -1] if working_set is None else np.full(len(work_NT), float(working_set))
        return self._predictor.inside_many(work_NT[:, :-1], sizes_N).reshape(options.shape[:-1])

    def _work(self, points_NU: Options) -> Floats:
        """What points take, (N, 1 + curves + 1): times as in `Work`, then bytes of weights."""
        if self._terms_of == tuple((number,) for number in range(len(self._names))):
            found_NT = self._costs.of(points_NU)
        else:
            columns = [
                points_NU[:, places[0]]
                if len(places) == 1
                else points_NU[:, places[0]] * len(self._choices[places[1]]) + points_NU[:, places[1]]
                for places in self._terms_of
            ]
            found_NT = self._costs.of(np.stack(columns, axis=-1))
        for part_T, places, left_out in self._unread:
            gone_N = np.all([left_out[number][points_NU[:, place]] for number, place in enumerate(places)], axis=0)
            found_NT[gone_N] -= part_T
        return found_NT

    def _unread_of(
        self, structure: ModelStructure, kind: UnitKind
    ) -> tuple[Floats, tuple[int, ...], tuple[npt.NDArray[np.bool_], ...]]:
        """Work of the parts that units of a kind read, where those are, and which of their options leave them out."""
        parts = tuple(part for part in structure.fixed if part.only_for is kind)
        counts = fixed_operators(replace(structure, fixed=parts), self._predictor.workload)
        places = tuple(self._place[unit.name] for unit in structure.units if unit.kind is kind)
        left_out = tuple(np.array([choice.keep == 0 for choice in self._choices[place]]) for place in places)
        return self._row_of(counts), places, left_out

    def _terms(self, unit: Unit) -> list[tuple[tuple[int, ...], Floats]]:
        """Work by the options of one or two units: the places of these units, and an array with an axis for each."""
        own = self._place[unit.name]
        workload = self._predictor.workload
        if not isinstance(unit, ChannelUnit):
            counts = [unit_operators(unit, choice, workload) for choice in self._choices[own]]
            return [((own,), np.array([self._row_of(found) for found in counts]))]
        sums = [self._row_of(sum_operators(unit, choice, workload)) for choice in self._choices[own]]
        return [((own,), np.array(sums)), *(self._layer_term(layer) for layer in unit.channel_layers)]

    def _layer_term(self, layer: ChannelLayer) -> tuple[tuple[int, ...], Floats]:
        sides = (layer.rows, layer.columns)
        names = tuple(dict.fromkeys(name for name in sides if name is not None))
        places = tuple(self._place[name] for name in names)
        found: Floats | None = None
        shape = [len(self._choices[place]) for place in places]
        for options in np.ndindex(*shape):
            chosen = {name: self._choices[p][o] for name, p, o in zip(names, places, options, strict=True)}
            rows, columns = (None if name is None else chosen[name] for name in sides)
            cut = cut_layer(layer, rows, columns, self._base_format)
            row_T = self._row_of(layer_operators(cut, self._predictor.workload))
            if found is None:
                found = np.empty((*shape, len(row_T)))
            found[options] = row_T
        assert found is not None
        return places, found

    def _row_of(self, counts: Counter[Operator]) -> Floats:
        return _row(self._predictor.work_of(counts.items()))


def _row(work: Work) -> Floats:
    return np.append(work.times_ms, float(work.weight_bytes))


def _readers(structure: ModelStructure) -> tuple[UnitKind, ...]:
    """Kinds of units that alone read some fixed part."""
    return tuple(dict.fromkeys(part.only_for for part in structure.fixed if part.only_for is not None))
