"""How much a policy is expected to add to the front's hypervolume, where its costs are known and its quality is not."""

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]


def expected_improvement(
    cost_N: Floats, mean_N: Floats, spread_N: Floats, front_cost_M: Floats, front_quality_M: Floats, *, best: float
) -> Floats:
    """Return the expected gain in hypervolume of candidates with one cost.

    Cost and quality are in units in which the reference point is cost 1 and quality 0. Where the front has quality f(c)
    at cost c, a candidate of cost c0 and quality Q adds the integral of max(0, Q - f(c)) over c from c0 to 1; with a
    normal Q its expectation is a sum of closed forms over the steps of f. Quality beyond `best` is not believed in.

    Args:
        cost_N: Costs of the candidates, (N,).
        mean_N: Expected quality, (N,).
        spread_N: Standard deviation of the quality, (N,), 0 or more.
        front_cost_M: Costs of scored policies, (M,), dominated ones allowed.
        front_quality_M: Their quality, (M,).
        best: Quality that no candidate exceeds.

    Returns:
        Expected gains, (N,), 0 or more.

    Reference:
        Emmerich, Giannakoglou and Naujoks, "Single- and multiobjective evolutionary optimization assisted by Gaussian
        random field metamodels", IEEE Transactions on Evolutionary Computation 10, 2006.
    """
    start_S, end_S, level_S = _steps(front_cost_M, front_quality_M)
    width_NS = np.clip(end_S, None, 1.0) - np.maximum(start_S, cost_N[:, None])
    mean_N1, spread_N1 = np.minimum(mean_N, best)[:, None], spread_N[:, None]
    beyond_N1 = expected_excess(mean_N1, spread_N1, np.array(best))
    gain_NS = np.clip(expected_excess(mean_N1, spread_N1, level_S) - beyond_N1, 0.0, None)
    found: Floats = (np.clip(width_NS, 0.0, None) * gain_NS).sum(axis=1)
    return found


def expected_excess(mean: Floats, spread: Floats, level: Floats) -> Floats:
    """Return E[max(0, Q - level)] of a normal Q, elementwise."""
    safe = np.maximum(spread, 1e-12)
    z = (mean - level) / safe
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    found: Floats = np.maximum(safe * (density + z * ndtr(z)), 0.0)
    return found


def _steps(cost_M: Floats, quality_M: Floats) -> tuple[Floats, Floats, Floats]:
    """The front as a step function of cost: (start, end, quality) of each step, beginning with quality 0."""
    order = np.argsort(cost_M, kind="stable")
    best = np.maximum.accumulate(np.append(0.0, np.clip(quality_M[order], 0.0, None)))
    edges = np.append(cost_M[order], np.inf)
    start = np.append(-np.inf, cost_M[order])
    return start, edges, best


def improvement_by_levels(
    cost_NK: Floats, mean_N: Floats, spread_N: Floats, front_cost_MK: Floats, front_quality_M: Floats, *, best: float
) -> Floats:
    """Return the expected gain in hypervolume of candidates with several costs.

    At each level of quality the candidate adds the part of cost space that it dominates and that no member with at
    least that quality does; the expectation sums these parts over the steps between the members' levels.

    Args:
        cost_NK: Costs of the candidates, (N, K), in units of the reference point.
        mean_N: Expected quality, (N,).
        spread_N: Standard deviation of the quality, (N,).
        front_cost_MK: Costs of scored policies, (M, K).
        front_quality_M: Their quality, (M,).
        best: Quality that no candidate exceeds.

    Returns:
        Expected gains, (N,), 0 or more.
    """
    import moocore

    reference = np.ones(cost_NK.shape[1])
    levels = np.unique(np.clip(np.append(front_quality_M, 0.0), 0.0, None))
    mean_N = np.minimum(mean_N, best)
    beyond_N = expected_excess(mean_N, spread_N, np.array(best))
    found = np.zeros(len(cost_NK))
    inside = [number for number in range(len(cost_NK)) if np.all(cost_NK[number] < 1)]
    for index, level in enumerate(levels):
        above = levels[index + 1] if index + 1 < len(levels) else np.inf
        # Between this level and the next one stand the members whose quality is at least the next one's.
        rivals = front_cost_MK[front_quality_M >= above] if np.isfinite(above) else front_cost_MK[:0]
        covered = float(moocore.hypervolume(rivals, ref=reference)) if len(rivals) else 0.0
        top = expected_excess(mean_N, spread_N, np.array(above)) if np.isfinite(above) else beyond_N
        slice_N = expected_excess(mean_N, spread_N, np.array(level)) - top
        for number in inside:
            if slice_N[number] > 0:
                joined = np.vstack([rivals, cost_NK[number]])
                found[number] += slice_N[number] * (float(moocore.hypervolume(joined, ref=reference)) - covered)
    return found
