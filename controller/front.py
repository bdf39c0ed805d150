"""The Pareto front: who is on it, how much it covers, which member bends it most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.job import Constraints, Objective
from evaluators.scores import Costs

MAXIMISED = frozenset({Objective.QUALITY})
"""Objectives that are to be large; all others are to be small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontMember:
    """A scored policy.

    Attributes:
        number: Number of the trial.
        policy_digest: Identity of the policy.
        name: Name for people ("dense", "trial 17").
        quality: The metric, larger is better.
        latency_ms: Predicted latency of one batch.
        size_bytes: Size of all parameters as stored.
        energy_mj: Energy of one batch; None where it is not known.
        peak_memory_bytes: Peak memory of activations; None where it is not known.
    """

    number: int
    policy_digest: str
    name: str
    quality: float
    latency_ms: float
    size_bytes: int
    energy_mj: float | None = None
    peak_memory_bytes: int | None = None

    def value(self, objective: Objective) -> float:
        """Return the value of one objective."""
        return self.quality if objective is Objective.QUALITY else cost_value(self, objective)


def cost_value(costs: Costs | FrontMember, objective: Objective) -> float:
    """Return one of the costs; infinite where it is not known.

    Raises:
        ValueError: Quality is no cost.
    """
    match objective:
        case Objective.LATENCY_MS:
            return costs.latency_ms
        case Objective.SIZE_BYTES:
            return float(costs.size_bytes)
        case Objective.ENERGY_MJ:
            return math.inf if costs.energy_mj is None else costs.energy_mj
        case Objective.PEAK_MEMORY_BYTES:
            return math.inf if costs.peak_memory_bytes is None else float(costs.peak_memory_bytes)
        case Objective.QUALITY:
            raise ValueError("a cost is one of latency, size, energy and peak memory; got quality; read it by itself")


def points_of(members: Sequence[FrontMember], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Return the members' objectives as an array of shape (members, objectives)."""
    rows = [[member.value(objective) for objective in objectives] for member in members]
    return np.array(rows, dtype=np.float64).reshape(len(members), len(objectives))


def nondominated(points: NDArray[np.float64], maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Tell which points no other point dominates; equal points are kept together.

    Args:
        points: Shape (points, objectives), finite.
        maximise: For each objective whether it is to be large.

    Returns:
        Shape (points,).
    """
    import moocore

    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    found: NDArray[np.bool_] = moocore.is_nondominated(points, maximise=list(maximise), keep_weakly=True)
    return found


def pareto_front(members: Sequence[FrontMember], objectives: Sequence[Objective]) -> list[FrontMember]:
    """Return the members that none dominates, ties kept, by falling latency.

    A policy that occurs more than once counts once, under its smallest number.
    """
    unique: dict[str, FrontMember] = {}
    for member in sorted(members, key=lambda m: m.number):
        unique.setdefault(member.policy_digest, member)
    candidates = list(unique.values())
    kept = nondominated(points_of(candidates, objectives), [o in MAXIMISED for o in objectives])
    front = [member for member, keep in zip(candidates, kept, strict=True) if keep]
    return sorted(front, key=lambda m: (-m.latency_ms, -m.quality, m.size_bytes, m.number))


def hypervolume(
    members: Sequence[FrontMember],
    objectives: Sequence[Objective],
    *,
    dense: FrontMember,
    chance_quality: float = 0.0,
) -> float:
    """Return the part of the objectives' space that the members dominate, in units of the dense model.

    Quality is measured from that of chance, in units of what the dense model has above it; costs in units of the dense
    model's. The reference point is a model as slow and as large as the dense one and no better than
    chance. The dense model alone has 0, and a policy that keeps its quality at no cost at all would have 1; more is
    possible only where quality exceeds the dense model's. Members beyond the reference point add nothing.

    Args:
        members: Scored policies, dominated ones allowed.
        objectives: What spans the space.
        dense: The dense model's scores.
        chance_quality: Quality of guessing, below the dense model's.
    """
    import moocore

    scale = {o: dense.quality - chance_quality if o is Objective.QUALITY else dense.value(o) for o in Objective}
    if any(value <= 0 for value in scale.values()):
        raise ValueError(
            f"the dense model must be better than chance and cost something; got quality={dense.quality}, "
            f"chance={chance_quality}, latency_ms={dense.latency_ms}, size_bytes={dense.size_bytes}"
        )
    if not members:
        return 0.0
    points = points_of(members, objectives)
    origin = np.array([chance_quality if o is Objective.QUALITY else 0.0 for o in objectives])
    points = (points - origin) / np.array([scale[o] for o in objectives])
    reference = np.array([0.0 if o in MAXIMISED else 1.0 for o in objectives])
    return float(moocore.hypervolume(points, ref=reference, maximise=[o in MAXIMISED for o in objectives]))


def reference_point(
    objectives: Sequence[Objective], *, dense: FrontMember, chance_quality: float = 0.0
) -> dict[Objective, float]:
    """Return the point from which `hypervolume` measures, in each objective's own unit.

    Args:
        objectives: What spans the space.
        dense: The dense model's scores.
        chance_quality: Quality of guessing.
    """
    return {o: chance_quality if o is Objective.QUALITY else dense.value(o) for o in objectives}


def knee(front: Sequence[FrontMember], objectives: Sequence[Objective]) -> FrontMember:
    """Return the member at which the front bends most; see `knee_order`.

    Raises:
        ValueError: The front is empty.
    """
    if not front:
        raise ValueError("a knee needs at least one member; got an empty front")
    return knee_order(front, objectives)[0]


def knee_order(front: Sequence[FrontMember], objectives: Sequence[Objective]) -> list[FrontMember]:
    """Order the members by how far the front bends there: by their distance from the plane through its extremes.

    Every objective is scaled to 0 (best on the front) to 1 (worst on the front); the plane is where they add up to 1.
    Ties go to the better quality, then to the smaller number.

    Reference:
        Das, "On characterizing the knee of the Pareto curve based on normal-boundary intersection", Structural
        Optimization 18, 1999.
    """
    if not front:
        return []
    signs = np.array([-1.0 if o in MAXIMISED else 1.0 for o in objectives])
    losses = points_of(front, objectives) * signs
    spread = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    order = sorted(range(len(front)), key=lambda i: (scaled[i].sum(), -front[i].quality, front[i].number))
    return [front[i] for i in order]


def violations(member: FrontMember, constraints: Constraints, dense_quality: float) -> dict[str, float]:
    """Return how far each declared constraint is broken; 0 or less where it is met.

    Costs are relative to their bounds (0.1 is a tenth too much); the drop of quality is absolute.
    """
    found = cost_violations(member, constraints)
    if constraints.max_quality_drop is not None:
        found["max_quality_drop"] = dense_quality - member.quality - constraints.max_quality_drop
    return found


def cost_violations(costs: Costs | FrontMember, constraints: Constraints) -> dict[str, float]:
    """Return how far the constraints on costs are broken, relative to their bounds; 0 or less where they are met."""
    bounds = cost_bounds(constraints)
    return {f"max_{objective}": cost_value(costs, objective) / bound - 1 for objective, bound in bounds.items()}


def cost_bounds(constraints: Constraints) -> dict[Objective, float]:
    """Return the declared bounds on costs, in the order of `Objective`."""
    declared = {
        Objective.LATENCY_MS: constraints.max_latency_ms,
        Objective.SIZE_BYTES: constraints.max_size_bytes,
        Objective.ENERGY_MJ: constraints.max_energy_mj,
        Objective.PEAK_MEMORY_BYTES: constraints.max_peak_memory_bytes,
    }
    return {objective: float(bound) for objective, bound in declared.items() if bound is not None}


def feasible(members: Sequence[FrontMember], constraints: Constraints, dense_quality: float) -> list[FrontMember]:
    """Return the members that meet all constraints, in the order given."""
    return [m for m in members if all(v <= 0 for v in violations(m, constraints, dense_quality).values())]


def least_violating(
    members: Sequence[FrontMember], constraints: Constraints, dense_quality: float, count: int = 3
) -> list[FrontMember]:
    """Return the members that break the constraints least, by the sum of what they break."""

    def broken(member: FrontMember) -> float:
        return sum(max(0.0, v) for v in violations(member, constraints, dense_quality).values())

    return sorted(members, key=lambda m: (broken(m), -m.quality, m.number))[:count]
