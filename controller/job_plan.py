"""What `paretrim validate` hands to whoever shows it: a job's units, and the costs of the dense model and at least."""

from dataclasses import dataclass

from controller.record import Record
from evaluators.latency.table.energy import EnergyBasis


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanUnit(Record):
    """One unit and its choices.

    Attributes:
        name: Name of the unit.
        kind: What its groups are ("attention").
        groups: Groups of the dense unit.
        keeps: Group counts on offer, descending.
        formats: Formats on offer.
        choices: How many different choices that makes.
        latency_ms: Predicted time of the dense unit; None where no table is at hand.
        size_bytes: Bytes of the dense unit.
    """

    name: str
    kind: str
    groups: int
    keeps: tuple[int, ...]
    formats: tuple[str, ...]
    choices: int
    latency_ms: float | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan(Record):
    """What a job would do, known without a trial.

    Attributes:
        study: Name of the study.
        architecture: Name of the model's architecture.
        units: Units in the model's order.
        space_size: Number of different policies.
        dense_latency_ms: Predicted time of the dense model; None where no table is at hand.
        dense_low_ms: Lower bound of that time; None where nobody measured how far predictions err.
        dense_high_ms: Upper bound, likewise.
        latency_margin_pct: Per cent within which 90 % of measured times are expected of predicted ones; None likewise.
        latency_sentence: The same in words; empty where no table is at hand.
        dense_size_bytes: Bytes of the dense model.
        min_latency_ms: Smallest latency in the space; None where no table is at hand.
        min_size_bytes: Smallest size in the space.
        dense_energy_mj: Energy of one batch of the dense model; None where no table is at hand.
        min_energy_mj: Energy that no policy of the space goes below; None where no table is at hand.
        energy_basis: Whether energies are measured or estimated; None where no table is at hand.
        dense_peak_memory_bytes: Peak memory of the dense model's activations.
        min_peak_memory_bytes: Peak memory that no policy of the space goes below.
        constraints_reachable: Whether a policy meets the bounds on costs.
        unreachable: One line for each bound out of reach, with the nearest that can be had.
        table_source: Where latencies come from ("measured on this machine", or the table's path).
        foreign_table: Whether the table was measured on another device, runtime or number of threads.
        foreign: How these differ from this machine's.
        extrapolated: How many operators of the space lie outside what the table was measured for.
        trials: Trials that the job asks for.
        data_read: Whether all rows of the data were read and encoded; else files were looked at only.
    """

    study: str
    architecture: str
    units: tuple[PlanUnit, ...]
    space_size: int
    dense_latency_ms: float | None
    dense_low_ms: float | None = None
    dense_high_ms: float | None = None
    latency_margin_pct: float | None = None
    latency_sentence: str = ""
    dense_size_bytes: int
    min_latency_ms: float | None
    min_size_bytes: int
    dense_energy_mj: float | None = None
    min_energy_mj: float | None = None
    energy_basis: EnergyBasis | None = None
    dense_peak_memory_bytes: int
    min_peak_memory_bytes: int
    constraints_reachable: bool
    unreachable: tuple[str, ...] = ()
    table_source: str
    foreign_table: bool = False
    foreign: tuple[str, ...] = ()
    extrapolated: int = 0
    trials: int
    data_read: bool = False
