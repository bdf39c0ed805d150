"""`paretrim table energy`: lets a latency table state what operations of its device cost."""

from pathlib import Path

from controller.errors import UsageError
from controller.plain_file import FileKind
from controller.tables.results import TableWritten
from controller.tables.stated_file import load_stated
from controller.tables.tools import check_new
from evaluators.latency.shipped import check_writable
from evaluators.latency.table import EnergyBasis, EnergyCoefficients, load_table

_COEFFICIENTS_FILE = FileKind(
    name="a file of coefficients",
    holds="a statement of energy",
    hint="evaluators/latency/README.md says what it can hold",
)


def load_coefficients(path: Path) -> EnergyCoefficients:
    """Read and check a file of energy coefficients.

    Args:
        path: YAML, or JSON where the name ends in ".json"; UTF-8, at most 1 MB. It holds `source`,
            `multiply_add_pj` (picojoule above 0 by arithmetic: float32, float16, float8 and int8), `weight_byte_pj` and
            `activation_byte_pj` (picojoule, 0 or more), and may hold `assumptions`.

    Raises:
        JobError: The file can't be read, or the coefficients are not valid; lists all problems with line and column.
    """
    return load_stated(path, EnergyCoefficients, _COEFFICIENTS_FILE, start="source: WHERE THE FIGURES ARE FROM")


def state_energy(table: Path, coefficients: Path, out: Path | None = None) -> TableWritten:
    """Let a table state energy coefficients, in place of what it says of energy.

    Args:
        table: The table's file.
        coefficients: File of coefficients.
        out: A new file; None changes the table's own.

    Raises:
        JobError: The coefficients are not valid.
        TableError: The table can't be read.
        ShippedTableError: The file that is written to lies among the tables of the package.
        UsageError: The new file exists already, or power that was measured would be lost.
    """
    stated = load_coefficients(coefficients)
    if out is None:
        check_writable(table)
    else:
        check_new(out)
    known = load_table(table)
    if out is None and known.energy is not None and known.energy.basis is EnergyBasis.MEASURED:
        raise UsageError(
            f"stated coefficients stand in for power that nobody measured; {table} has power measured by "
            f"{known.energy.source}; write a new file with -o to have both"
        )
    changed = known.model_copy(update={"energy": stated})
    changed.save(table if out is None else out)
    before = "none" if known.energy is None else f"{known.energy.basis.value}, {known.energy.source}"
    notes = [f"energies are estimated by {stated.source}; before: {before}"]
    if out is None and changed.checksum != known.checksum:
        notes.append("studies that were searched with the table as it was go on with that one only; -o keeps it")
    return TableWritten(
        file=table if out is None else out, target=changed.target, entries=len(changed.entries), notes=tuple(notes)
    )
