"""On which CPUs a table's times were taken."""

import os

import pytest

from evaluators.latency.table import Fingerprint, LatencyTable, Provenance, parse_table
from workers.profiling.threads import cpus_in_use, pinned, usable_cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that pins threads")
def test_the_cpus_that_a_thread_is_kept_on_are_told() -> None:
    before = cpus_in_use()
    assert before is not None
    with pinned(1):
        assert cpus_in_use() == before[-1:]
    with pinned(usable_cpus() + 1):
        assert cpus_in_use() == before
    assert cpus_in_use() == before


def test_a_table_tells_its_cpus_and_one_without_is_as_before() -> None:
    mark = Fingerprint(device="x", runtime="r", runtime_version="1", threads=1, os="Linux")
    plain = LatencyTable(target="t", fingerprint=mark, provenance=Provenance(measured_at=None), entries=())
    told = plain.model_copy(update={"provenance": Provenance(measured_at=None, cpus=(2, 3))})
    assert "cpus" not in plain.to_json()
    assert parse_table(plain.to_json()) == plain
    assert parse_table(told.to_json()).provenance.cpus == (2, 3)
    assert told.checksum != plain.checksum
