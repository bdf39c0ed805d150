"""Another target: what is left out stays, a table tells device and threads, and jobs may name several."""

import pytest
import yaml

from controller.errors import UsageError
from controller.job import JobError, parse_job
from controller.job_file import load_job
from controller.retargeting.job import retargeted_job
from controller.retargeting.target_change import TargetChange, describe_target, differences
from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance
from evaluators.latency.workload import OperatorKind
from workers.targets import TargetConfig

JOB = {
    "name": "demo",
    "model": {"id": "org/model"},
    "data": {"source": "org/data"},
    "target": {"sequence_length": 32},
    "constraints": {"max_latency_ms": 5.0},
    "search": {"sampler": "nsga2"},
}


@pytest.fixture
def table(tmp_path):
    entry = Entry(
        kind=OperatorKind.LAYER_NORM,
        axes={"tokens": 1, "features": 8},
        median_ms=1.0,
        spread_ms=0.0,
        repeats=1,
        working_set_bytes=0,
    )
    mark = Fingerprint(device="d", runtime="r", runtime_version="1", threads=4, os="o")
    found = LatencyTable(
        target="cpu-torch", fingerprint=mark, provenance=Provenance(measured_at=None), entries=(entry,)
    )
    found.save(tmp_path / "table.json")
    return tmp_path / "table.json", found


def test_what_is_left_out_stays():
    target = TargetConfig(batch=2, sequence_length=32, threads=3, allow_extrapolation=True)
    changed = TargetChange(threads=4).applied_to(target, None)
    assert changed == TargetConfig(batch=2, sequence_length=32, threads=4)


def test_a_table_tells_target_and_threads(table):
    path, found = table
    changed = TargetChange(table=path, batch=8).applied_to(TargetConfig(), found)
    assert (changed.name, changed.threads, changed.batch, changed.table) == ("cpu-torch", 4, 8, path)
    assert TargetChange(table=path, threads=2).applied_to(TargetConfig(), found).threads == 2


def test_differences_name_the_study():
    before = TargetConfig(sequence_length=32)
    now = TargetConfig(name="cpu-torch", batch=8, sequence_length=64, threads=2)
    assert differences(before, now) == ("cpu-torch", "b8", "s64", "2t")
    assert differences(before, before.model_copy(update={"allow_foreign_table": True})) == ()
    assert describe_target(now) == "cpu-torch, 2 threads, 8 examples of 64 tokens a call"


def test_a_job_moves_to_another_target(table):
    job = parse_job(JOB)
    moved = retargeted_job(job, TargetChange(threads=2, max_latency_ms=3.0))
    assert moved.name == "demo-2t"
    assert moved.search.sampler == "frontier"
    assert moved.constraints.max_latency_ms == 3.0
    assert moved.also == ()
    assert moved.fixed_content()["space"] == job.fixed_content()["space"]
    assert retargeted_job(job, TargetChange(threads=2, study="other")).name == "other"
    path, found = table
    same = TargetChange(table=path, name="cpu-onnxruntime", threads=1)
    assert retargeted_job(job, same).name == f"demo-table-{found.checksum[:8]}"
    long = job.model_copy(update={"name": "n" * 64})
    assert retargeted_job(long, TargetChange(threads=2)).name == "n" * 61 + "-2t"


def test_formats_without_kernels_are_left_out():
    job = parse_job({**JOB, "space": {"formats": ["fp32", "w8a8", "w4"]}})
    moved = retargeted_job(job, TargetChange(name="cpu-torch"))
    assert moved.space.formats == ("fp32", "w8a8")
    with pytest.raises(UsageError, match="has none for w4"):
        retargeted_job(parse_job({**JOB, "space": {"formats": ["w4"]}}), TargetChange(name="cpu-torch"))


def test_a_job_names_further_targets(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, "also": [{"threads": 2}, {"table": "t.json", "evaluations": 0}]}))
    job = load_job(path)
    assert [change.evaluations for change in job.also] == [None, 0]
    assert job.also[1].table == tmp_path / "t.json"
    assert job.digest == parse_job(JOB).digest
    with pytest.raises(JobError, match=r"also\.0\.name: must be a target"):
        parse_job({**JOB, "also": [{"name": "gpu"}]})
    with pytest.raises(JobError, match="did you mean 'threads'"):
        parse_job({**JOB, "also": [{"thread": 2}]})
