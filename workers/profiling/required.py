"""Which operators a table is about: all that a space reaches, or a model's on a grid of widths."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from evaluators.latency.working_set import working_set_bytes as bytes_of
from evaluators.latency.workload import Operator, Workload, fixed_operators, layer_operators, unit_operators
from search_spaces.channels import ChannelUnit, reachable_cuts
from search_spaces.formats import FORMATS, LayerType
from search_spaces.policy import Choice
from search_spaces.space import SearchSpace
from search_spaces.units import ModelStructure, Unit

MAX_CHANNEL_STEPS = 4
"""Widths of channels in a grid."""


def required_operators(space: SearchSpace, workload: Workload) -> tuple[Operator, ...]:
    """Return every operator that a policy of the space can reach, the dense one's included, without repeats."""
    found = set(fixed_operators(space.structure, workload))
    choices = {
        unit.name: tuple(dict.fromkeys((*space.choices(unit.name), Choice(unit.groups, space.base_format))))
        for unit in space.structure.units
    }
    for unit in space.structure.units:
        found.update(_reachable(unit, choices, space.base_format, workload))
    return tuple(sorted(found, key=str))


def _reachable(
    unit: Unit, choices: Mapping[str, Sequence[Choice]], base_format: str, workload: Workload
) -> Iterator[Operator]:
    """Operators of one unit under all its choices, and under those of the units that it shares layers with."""
    for choice in choices[unit.name]:
        yield from unit_operators(unit, choice, workload)
    for layer in unit.channel_layers if isinstance(unit, ChannelUnit) else ():
        for cut in reachable_cuts(layer, choices, base_format):
            yield from layer_operators(cut, workload)


def grid_operators(
    structure: ModelStructure, workload: Workload, *, formats: Iterable[str], channel_multiple: int, steps: int = 8
) -> tuple[Operator, ...]:
    """Return the operators of a model on a grid of widths, for a table that serves spaces not yet declared.

    Args:
        structure: Units and fixed parts.
        workload: Batch and tokens.
        formats: Formats that have a kernel on the target.
        channel_multiple: Widths on the target are multiples of this.
        steps: Widths of a unit: its groups in so many equal steps, and the fewest groups that a policy can keep, so
            that every width lies within the grid.
    """
    found = set(fixed_operators(structure, workload))
    choices: dict[str, list[Choice]] = {}
    for unit in structure.units:
        # A layer between channels has a grid of two axes: fewer steps along each keep it affordable.
        count = min(steps, MAX_CHANNEL_STEPS) if isinstance(unit, ChannelUnit) else steps
        ratios = (1e-9, *(step / count for step in range(1, count + 1)))
        keeps = unit.counts(ratios, channel_multiple=channel_multiple)
        names = [n for n in {structure.base_format, *formats} if unit.layer_type in FORMATS.get(n).layer_types]
        choices[unit.name] = [Choice(keep, name) for name in names for keep in keeps]
    for unit in structure.units:
        found.update(_reachable(unit, choices, structure.base_format, workload))
    return tuple(sorted(found, key=str))


def working_set_bytes(structure: ModelStructure, format_name: str | None) -> int:
    """Bytes of all weights, those of units in one format (None: the base format): what passes through the caches in a
    call.
    """
    number_format = FORMATS.get(format_name or structure.base_format)
    outside = fixed_operators(structure, Workload(batch=1, sequence_length=1))
    return bytes_of(outside.items()) + sum(
        number_format.weight_bytes(out_features, in_features)
        for unit in structure.units
        if unit.layer_type is not LayerType.EMBEDDING
        for _, out_features, in_features in unit.layer_shapes(unit.groups)
    )
