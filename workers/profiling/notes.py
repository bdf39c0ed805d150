"""What a profile says of the machine that it ran on: lines for the table's provenance."""

from collections.abc import Iterable, Sequence

from evaluators.latency.table import Entry, LatencyTable
from workers.profiling.other_work import OtherWork
from workers.profiling.sampling import CLOCK_TOLERANCE, Reference, Samples

NOISY_SPREAD = 0.25
"""Spread of an operator's undisturbed times, relative to them, from which it counts as noisy."""
NOISY_SHARE = 0.2
"""Share of noisy operators from which the machine counts as noisy."""
BUSY_SHARE = 0.15
"""Share of the CPUs that other work keeps busy from which it is told of."""
_NOISY = "the machine is noisy: "
_UNVERIFIED = "the time for profiling was over before interpolation between widths was tried everywhere: "


def noise_note(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return a note where many operators spread widely, else nothing."""
    noisy = [entry for entry in entries if (entry.relative_spread or 0.0) > NOISY_SPREAD]
    if len(noisy) <= NOISY_SHARE * len(entries):
        return ()
    return (
        f"{_NOISY}{len(noisy)} of {len(entries)} operators spread by more than {NOISY_SPREAD:.0%} of "
        "their time even where nothing disturbed them; end other work and profile again into a new file",
    )


def clock_note(taken: Sequence[Samples], reference: Reference) -> tuple[str, ...]:
    """Return a note where too few rounds agree about operators' undisturbed times, else nothing.

    Args:
        taken: What was sampled in a run.
        reference: Timed between all of these rounds.
    """
    unsettled = sum(samples.unsettled for samples in taken)
    if not unsettled:
        return ()
    disturbed, rounds = (sum(found) for found in zip(*((s.disturbed, s.rounds) for s in taken), strict=True))
    return (
        f"clocks or other work changed meanwhile: {reference.operator} took up to "
        f"{max(reference.times_ms) / reference.level_ms:.2f} times its undisturbed {reference.level_ms:.3g} ms, more "
        f"than {1 + CLOCK_TOLERANCE:.1f} times in {disturbed} of {rounds} rounds; {unsettled} operators were hardly "
        "ever seen undisturbed",
    )


def pace_note(taken: Sequence[Samples], reference: Reference) -> tuple[str, ...]:
    """Return a note where parts of a run were measured at different speeds, each steady by itself, else nothing.

    Args:
        taken: What was sampled in a run.
        reference: Timed between all of these rounds.
    """
    usual_ms = reference.level_ms
    apart = [samples for samples in taken if samples.is_apart(usual_ms)]
    if not apart:
        return ()
    least, most = (bound(samples.reference_ms for samples in apart) / usual_ms for bound in (min, max))
    measured, total = (sum(len(samples.times_ms) for samples in found) for found in (apart, taken))
    return (
        f"the machine changed its speed for good or for a while: {measured} of {total} operators were measured while "
        f"{reference.operator} took {least:.2f} to {most:.2f} times its undisturbed {usual_ms:.3g} ms, so that rows "
        "do not compare; hold the clocks fixed and profile again into a new file",
    )


def company_note(other_work: OtherWork | None) -> tuple[str, ...]:
    """Return a note where other work kept CPUs busy meanwhile, else nothing.

    Cores share caches and memory, so that it moves times that no round shows as disturbed.
    """
    busy = None if other_work is None else other_work.busy_cpus()
    if other_work is None or busy is None or busy <= BUSY_SHARE * other_work.cpus:
        return ()
    return (
        f"other work kept {busy:.1f} of {other_work.cpus} CPUs busy while rows were measured, so that times may be "
        "some per cent too long; end it and profile again into a new file for surer times",
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


def cut_note(taken: Sequence[Samples], rounds: int) -> tuple[str, ...]:
    """Return a note where time was over before operators had all their rounds, else nothing.

    Args:
        taken: What was sampled in a run.
        rounds: Rounds that an operator is to have.
    """
    cut = sum(samples.cut for samples in taken)
    if not cut:
        return ()
    fewest = min(samples.fewest_rounds for samples in taken)
    return (
        f"time was over before {cut} of {sum(len(samples.times_ms) for samples in taken)} operators were sampled in "
        f"{rounds} rounds each; they have {fewest} at least; profile with more time into a new file for surer times",
    )


def unverified_note(blocks: int, scope: str) -> str:
    """Return a note that time was over before interpolation was tried everywhere.

    Args:
        blocks: Groups of operators of one kind and format that it was not tried in.
        scope: Whose operators they are.
    """
    return f"{_UNVERIFIED}{blocks} groups of operators of {scope} are left; run the command again to go on"


def lasting(notes: Iterable[str], *, finished: str | None = None) -> tuple[str, ...]:
    """Return those of a table's earlier notes that more rows leave true.

    How noisy all rows are is told anew whenever there are more.

    Args:
        notes: Notes of a table whose rows all stay.
        finished: Whose operators were tried again in all groups, or noted again; None while that goes on.
    """
    left = ("" if finished is None else f" groups of operators of {finished} are left", " groups of operators are left")
    return tuple(
        note
        for note in notes
        if not note.startswith(_NOISY)
        and not (finished is not None and note.startswith(_UNVERIFIED) and any(words in note for words in left))
    )
