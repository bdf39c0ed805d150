"""Chooses which whole models to measure, so that a correction fitted on them is sure of all that a search may ask.

The time of a model is a sum of terms. Where its models hold them all in about the same shares, a fit can't tell one
term's coefficient from another's, and errs on models whose shares differ. An I-optimal design has the least mean
variance of prediction (Box and Draper, 1959, their V criterion); it is found by adding the best candidate at each step
and then exchanging members as long as that helps (Fedorov, 1972; Mitchell and Miller, 1970). Overheads that follow the
number of operators, which few corrections have, are left out of the account: they grow with the terms that are in it.
"""

from collections.abc import Sequence

import numpy as np

from evaluators.latency.fitting import Floats, Term

OVERHEAD_SHARE = 0.05
"""Share of the median model's time that the overhead of a call is worth, against coefficients that are about one."""
PRIOR = 1e-3
"""What is known of a coefficient before anything is measured, as a share of what a measurement of it alone tells."""
PASSES = 10
"""Passes of exchanges, at most."""
_GAIN = 1e-6


def shares_of_time(terms_PT: Floats) -> Floats:
    """Return what predictions are linear in, the terms and a call's overhead, relative to each model's time: (P, C).

    Args:
        terms_PT: Terms of the models (P, T), by `terms_of`.
    """
    sums_P = terms_PT[:, : Term.OPERATORS].sum(axis=1)
    call_P = np.full(len(terms_PT), OVERHEAD_SHARE * np.median(sums_P))
    columns_PC: Floats = np.column_stack([terms_PT[:, : Term.OPERATORS], call_P])
    shares_PC: Floats = columns_PC[:, columns_PC.any(axis=0)] / sums_P[:, None]
    return shares_PC


def surest(features_PC: Floats, count: int, *, kept: Sequence[int] = ()) -> list[int]:
    """Return the members of an I-optimal design, those kept first, then those that tell most beside the ones before.

    Args:
        features_PC: What predictions are linear in, a row a candidate; the variance of prediction is averaged over all
            of them.
        count: Members, at least as many as are kept; fewer come back where there are no more candidates.
        kept: Candidates that are members whatever that costs.
    """
    candidates = range(len(features_PC))
    members = _by_gain(features_PC, kept, candidates, count)
    reached = variance(features_PC, members)
    for _ in range(PASSES):
        before = reached
        for place in range(len(kept), len(members)):
            others = [*members[:place], *members[place + 1 :]]
            found, candidate = _best(features_PC, others, candidates)
            if found < reached * (1 - _GAIN):
                members[place], reached = candidate, found
        if reached == before:
            break
    return _by_gain(features_PC, kept, members, count)


def variance(features_PC: Floats, members: Sequence[int]) -> float:
    """Mean variance of prediction over all candidates after a fit on the members, in units of a measurement's."""
    chosen_MC = features_PC[list(members)]
    information_CC = chosen_MC.T @ chosen_MC + PRIOR * np.eye(features_PC.shape[1])
    return float(np.trace(np.linalg.solve(information_CC, features_PC.T @ features_PC)) / len(features_PC))


def _by_gain(features_PC: Floats, kept: Sequence[int], candidates: Sequence[int], count: int) -> list[int]:
    """Those kept, and of the candidates at each step the one that tells most beside them."""
    members = list(kept)
    while len(members) < min(count, len({*kept, *candidates})):
        members.append(_best(features_PC, members, candidates)[1])
    return members


def _best(features_PC: Floats, members: Sequence[int], candidates: Sequence[int]) -> tuple[float, int]:
    """The candidate to add, with the variance that is then reached."""
    left = (number for number in candidates if number not in members)
    return min((variance(features_PC, [*members, number]), number) for number in left)
