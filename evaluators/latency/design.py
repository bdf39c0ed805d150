"""Chooses which whole models to measure, so that a correction fitted on them is sure of all that a search may ask.

The time of a model is a sum of terms. Where its models hold them all in about the same shares, a fit can't tell one
term's coefficient from another's, and errs on models whose shares differ. An I-optimal design has the least mean
variance of prediction (Box and Draper, 1959, their V criterion); it is found by adding the best candidate at each step
and then exchanging members as long as that helps (Fedorov, 1972; Mitchell and Miller, 1970).
"""

from collections.abc import Sequence

import numpy as np

from evaluators.latency.fitting import RIDGE, Floats, Term

OVERHEAD_SHARE = 0.05
"""Share of the median model's time that the overhead of a call is worth, against coefficients that are about one."""
PASSES = 10
"""Passes of exchanges, at most."""
_GAIN = 1e-6


def shares_of_time(terms_PT: Floats) -> Floats:
    """Return what a correction's prediction is linear in, relative to each model's time: (P, C).

    Args:
        terms_PT: Terms of the models (P, T), by `terms_of`.
    """
    sums_P = terms_PT[:, : Term.OPERATORS].sum(axis=1)
    call_P = np.full(len(terms_PT), OVERHEAD_SHARE * np.median(sums_P))
    columns_PC: Floats = np.column_stack([terms_PT[:, : Term.OPERATORS], call_P])
    shares_PC: Floats = columns_PC[:, columns_PC.any(axis=0)] / sums_P[:, None]
    return shares_PC


def surest(features_PC: Floats, count: int, *, kept: Sequence[int] = ()) -> list[int]:
    """Return the members of an I-optimal design, those kept first, the others as they were added.

    Args:
        features_PC: What predictions are linear in, a row a candidate; the variance of prediction is averaged over all
            of them.
        count: Members, at least as many as are kept; fewer come back where there are no more candidates.
        kept: Candidates that are members whatever that costs.
    """
    members = list(kept)
    while len(members) < min(count, len(features_PC)):
        members.append(_best(features_PC, members)[1])
    for _ in range(PASSES):
        before = variance(features_PC, members)
        for place in range(len(kept), len(members)):
            others = [*members[:place], *members[place + 1 :]]
            found, candidate = _best(features_PC, others)
            if found < variance(features_PC, members) * (1 - _GAIN):
                members[place] = candidate
        if variance(features_PC, members) >= before * (1 - _GAIN):
            break
    return members


def variance(features_PC: Floats, members: Sequence[int]) -> float:
    """Mean variance of prediction over all candidates after a fit on the members, in units of a measurement's."""
    information_CC = features_PC[members].T @ features_PC[members] + RIDGE * np.eye(features_PC.shape[1])
    return float(np.trace(np.linalg.solve(information_CC, features_PC.T @ features_PC)) / len(features_PC))


def _best(features_PC: Floats, members: Sequence[int]) -> tuple[float, int]:
    """The candidate to add, with the variance that is then reached."""
    candidates = (number for number in range(len(features_PC)) if number not in members)
    return min((variance(features_PC, [*members, number]), number) for number in candidates)
