"""The latency table: measured times of operators on one target, stored with fingerprint, provenance and checksums."""

from evaluators.latency.table.basis import CorrectionBasis
from evaluators.latency.table.cache import CacheCurve
from evaluators.latency.table.energy import EnergyBasis, EnergyCoefficients, MeasuredPower
from evaluators.latency.table.entry import Entry
from evaluators.latency.table.fingerprint import Fingerprint, ForeignTableError, check_fingerprint
from evaluators.latency.table.provenance import Provenance, Source, TimeUnit, UnitBasis
from evaluators.latency.table.reading import TableError, load_table, parse_table
from evaluators.latency.table.record import SCHEMA_VERSION, LatencyTable, WorkloadCorrection
from evaluators.latency.table.schema import table_schema

__all__ = [
    "SCHEMA_VERSION",
    "CacheCurve",
    "CorrectionBasis",
    "EnergyBasis",
    "EnergyCoefficients",
    "Entry",
    "Fingerprint",
    "ForeignTableError",
    "LatencyTable",
    "MeasuredPower",
    "Provenance",
    "Source",
    "TableError",
    "TimeUnit",
    "UnitBasis",
    "WorkloadCorrection",
    "check_fingerprint",
    "load_table",
    "parse_table",
    "table_schema",
]
