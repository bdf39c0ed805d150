"""Says how far predicted latencies may be from measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluators.latency.correction import CONFIDENCE, Correction

MARGIN_PCT = "latency_margin_pct"
"""Where a study keeps how far its latencies err, among what is fixed of its job."""


def margin_of(correction: Correction | None) -> float | None:
    """Return the per cent within which `CONFIDENCE` of measured times are expected; None where nobody measured that."""
    return None if correction is None else correction.margin_pct


def latency_sentence(margin_pct: float | None, *, foreign: bool = False, extrapolated: bool = False) -> str:
    """Say how far predicted latencies err.

    Args:
        margin_pct: What `margin_of` says.
        foreign: Whether the table is of other hardware.
        extrapolated: Whether operators lie outside what the table was measured for.
    """
    if margin_pct is None:
        return "latencies are plain sums of operators, of unknown error: `paretrim calibrate-table` measures it"
    where = " on the hardware of the table" if foreign else ""
    what = ", of policies within what it was measured for" if extrapolated else ""
    return (
        f"latencies are predictions: {100 * CONFIDENCE:.0f} % of measured times{where} are expected within "
        f"{margin_pct:.1f} % of them{what}"
    )


def capitalised(sentence: str) -> str:
    """Return a sentence as it begins on a page."""
    return sentence[:1].upper() + sentence[1:]


def stored_sentence(fixed_job: Mapping[str, Any]) -> str:
    """Say how far a study's latencies err, from what is fixed of its job; nothing where an earlier version made it.

    Args:
        fixed_job: What is fixed of the job, as JSON values.
    """
    if MARGIN_PCT not in fixed_job:
        return ""
    foreign, extrapolated = bool(fixed_job.get("foreign_table")), bool(fixed_job.get("extrapolated"))
    return latency_sentence(fixed_job[MARGIN_PCT], foreign=foreign, extrapolated=extrapolated)
