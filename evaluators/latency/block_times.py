"""Predicted time until a block of a model is done: what an example costs that leaves there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.workload import Operator, OperatorKind, Workload, fixed_operators, fixed_parts
from search_spaces.policy import Policy
from search_spaces.units import FixedPart, ModelStructure, PartKind, UnitKind

_NORMS = (PartKind.LAYER_NORM, PartKind.RMS_NORM)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTimes:
    """Time of a call up to each block.

    Attributes:
        until_ms: By name of the block, in the model's order: overhead of the call, and all that runs before the block
            ends.
        whole_ms: The whole model, its head included.
    """

    until_ms: dict[str, float]
    whole_ms: float


def block_times(structure: ModelStructure, policy: Policy, predictor: LatencyPredictor) -> BlockTimes:
    """Split a policy's predicted latency at its blocks.

    Normalisations outside units are spread evenly over the blocks that have layers; what is left of them runs in front
    of the first block where branches do not normalise their input, else behind the last.

    Args:
        structure: Units and fixed parts; one stack of blocks, in which all units lie.
        policy: A choice for every unit.
        predictor: Times on the target.

    Raises:
        MissingEntryError: The table lacks an operator.
        ValueError: There is not one stack, or a unit lies outside of it.
    """
    blocks = _only_stack(structure)
    predictor = predictor.for_policy(structure, policy)
    units_ms = dict.fromkeys(blocks, 0.0)
    with_layers = set()
    for unit in structure.units:
        block = _block_of(unit.layers[0], blocks)
        units_ms[block] += predictor.unit_ms(unit, policy[unit.name])
        if unit.kind is not UnitKind.EMBEDDING:
            with_layers.add(block)
    inside = [_inside(part, len(with_layers)) for part in structure.fixed]
    inside_ms = _parts_ms(structure, inside, predictor)
    first = _parts_ms(structure, _first(structure, policy, len(with_layers)), predictor)
    overhead_ms = 0.0 if predictor.correction is None else predictor.correction.overhead_ms
    each_ms = [units_ms[block] + (inside_ms if block in with_layers else 0.0) for block in blocks]
    until_ms = accumulate(each_ms, initial=overhead_ms + first)
    next(until_ms)
    return BlockTimes(
        until_ms=dict(zip(blocks, until_ms, strict=True)), whole_ms=predictor.policy_ms(structure, policy)
    )


def exit_head_operator(workload: Workload, *, features: int, classes: int) -> Operator:
    """Return the product of an exit's head: once an example, as large as that of the model's own classifier."""
    return Operator.of(
        OperatorKind.LINEAR,
        format="fp32",
        tokens=workload.batch,
        in_features=features,
        out_features=classes,
    )


def _only_stack(structure: ModelStructure) -> tuple[str, ...]:
    if len(structure.stacks) != 1:
        raise ValueError(
            "times up to a block are known of models with one stack of blocks; "
            f"{structure.architecture} has {len(structure.stacks)}"
        )
    return structure.stacks[0]


def _block_of(layer: str, blocks: Iterable[str]) -> str:
    for block in blocks:
        if f"{layer}.".startswith(f"{block}."):
            return block
    raise ValueError(f"times up to a block need all units inside of blocks; {layer} lies outside")


def _inside(part: FixedPart, blocks: int) -> FixedPart:
    """What of a part every block with layers runs."""
    return replace(part, count=part.count // blocks if part.kind in _NORMS else 0)


def _first(structure: ModelStructure, policy: Policy, blocks: int) -> list[FixedPart]:
    """Parts that run in front of the blocks with layers."""
    found = []
    for part in fixed_parts(structure, policy):
        if part.kind in _NORMS:
            left = 0 if structure.normalizes_first else part.count % blocks
            found.append(replace(part, count=left))
        elif part.per_token or part.kind is PartKind.CONVOLUTION:
            found.append(part)
    return found


def _parts_ms(structure: ModelStructure, parts: Iterable[FixedPart], predictor: LatencyPredictor) -> float:
    counted = tuple(part for part in parts if part.count)
    operators = fixed_operators(replace(structure, units=(), fixed=counted), predictor.workload)
    return predictor.operators_ms(operators.items())
