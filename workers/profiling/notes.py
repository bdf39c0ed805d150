"""What a profile says of the machine that it ran on: lines for the table's provenance."""

from collections.abc import Sequence

from evaluators.latency.table import Entry, LatencyTable
from workers.profiling.sampling import CLOCK_TOLERANCE, Reference, Samples

NOISY_SPREAD = 0.25
"""Interquartile range over median from which one operator counts as noisy."""
NOISY_SHARE = 0.2
"""Share of noisy operators from which the machine counts as noisy."""


def noise_note(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return a note where many operators spread widely, else nothing."""
    noisy = [entry for entry in entries if (entry.relative_spread or 0.0) > NOISY_SPREAD]
    if len(noisy) <= NOISY_SHARE * len(entries):
        return ()
    return (
        f"the machine is noisy: {len(noisy)} of {len(entries)} operators spread by more than {NOISY_SPREAD:.0%} of "
        "their median; end other work and profile again into a new file",
    )


def clock_note(taken: Sequence[Samples], reference: Reference) -> tuple[str, ...]:
    """Return a note where the reference operator's time changed between rounds, else nothing.

    Args:
        taken: What was sampled in a run.
        reference: Timed between all of these rounds.
    """
    unsteady = sum(samples.unsteady for samples in taken)
    if not unsteady:
        return ()
    least, most = (bound(reference.times_ms) / reference.level_ms for bound in (min, max))
    unsettled = sum(samples.unsettled for samples in taken)
    kept = f"; {unsettled} operators keep times of such rounds" if unsettled else ""
    return (
        f"clocks or other work changed meanwhile: {reference.operator} took {least:.2f} to {most:.2f} times its usual "
        f"{reference.level_ms:.3g} ms; {unsteady} of {sum(samples.rounds for samples in taken)} rounds were measured "
        f"again{kept}",
    )


def pace_note(taken: Sequence[Samples], reference: Reference) -> tuple[str, ...]:
    """Return a note where parts of a run were measured at different speeds, each steady by itself, else nothing.

    Args:
        taken: What was sampled in a run.
        reference: Timed between all of these rounds.
    """
    usual_ms = reference.level_ms
    apart = [samples for samples in taken if abs(samples.reference_ms / usual_ms - 1) > CLOCK_TOLERANCE]
    if not apart:
        return ()
    least, most = (bound(samples.reference_ms for samples in apart) / usual_ms for bound in (min, max))
    measured, total = (sum(len(samples.times_ms) for samples in found) for found in (apart, taken))
    return (
        f"the machine changed its speed for good or for a while: {measured} of {total} operators were measured while "
        f"{reference.operator} took {least:.2f} to {most:.2f} times its usual {usual_ms:.3g} ms, so that rows do not "
        "compare; hold the clocks fixed and profile again into a new file",
    )


def changed_since(table: LatencyTable | None, reference: Reference) -> tuple[str, ...]:
    """Return a note where the machine runs at another speed than when the table was begun, else nothing."""
    known = {entry.operator: entry.median_ms for entry in table.entries} if table else {}
    before_ms = known.get(reference.operator)
    if before_ms is None or abs(reference.level_ms / before_ms - 1) <= CLOCK_TOLERANCE:
        return ()
    return (
        f"the machine runs at another speed than when the table was begun: {reference.operator} took {before_ms:.3g} "
        f"ms then and {reference.level_ms:.3g} ms now; profile again into a new file if that lasts",
    )


def unverified_note(blocks: int) -> str:
    """Return a note that time was over before interpolation was tried everywhere.

    Args:
        blocks: Groups of operators of one kind and format that it was not tried in.
    """
    return (
        f"the time for profiling was over before interpolation between widths was tried everywhere: {blocks} groups of "
        "operators are left; run the command again to go on"
    )
