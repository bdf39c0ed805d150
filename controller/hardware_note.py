"""What is said wherever latencies are shown that do not hold on this machine."""

from collections.abc import Sequence

FOREIGN_TABLE = (
    "latencies come from a table that was measured on another device, runtime or number of threads: good for "
    "planning only"
)


def foreign_note(differences: Sequence[str]) -> str:
    """Return the note on a foreign table with what differs."""
    return f"{FOREIGN_TABLE} ({'; '.join(differences)})"


def hardware_note(*, foreign_table: bool, measured_on: str | None) -> str | None:
    """Return what latencies of a table from elsewhere are to be read with; None where the table is from here.

    Args:
        foreign_table: Whether the table was measured on other hardware.
        measured_on: That hardware in words, where the latencies are meant for it; None where they stand in for this
            machine's.
    """
    if measured_on is not None:
        return f"latencies hold on {measured_on}, where the table was measured, not on this machine"
    return FOREIGN_TABLE if foreign_table else None
