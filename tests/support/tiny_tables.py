"""Invented latency tables, and a unit that they are about."""

from collections.abc import Mapping
from typing import Any

from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance
from evaluators.latency.workload import Operator
from search_spaces.units import Branch, Producer, Unit, UnitKind


def feed_forward(name: str = "f", groups: int = 64) -> Unit:
    """A feed-forward block of 16 channels in a residual branch."""
    return Unit(
        name=name,
        kind=UnitKind.FEED_FORWARD,
        groups=groups,
        producers=(Producer(layer=f"{name}.up", rows_per_group=1),),
        consumer=f"{name}.down",
        columns_per_group=1,
        in_features=16,
        out_features=16,
        branch=Branch(module=name),
        activation="gelu",
    )


def table_of(times_ms: Mapping[Operator, float], *, working_set_bytes: int = 0, **fields: Any) -> LatencyTable:
    """A table of these times, of a device that nobody has."""
    given = {
        "target": "cpu-onnxruntime",
        "fingerprint": Fingerprint(device="x", runtime="onnxruntime", runtime_version="1", threads=2, os="Linux"),
        "provenance": Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=1),
        "entries": tuple(
            Entry.of(operator, time_ms, spread_ms=0.0, repeats=1, working_set_bytes=working_set_bytes)
            for operator, time_ms in times_ms.items()
        ),
    }
    return LatencyTable(**(given | fields))
