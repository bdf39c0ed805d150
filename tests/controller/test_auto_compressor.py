"""The short form of a job: what it maps onto, and what it says of keys that it does not know."""

from pathlib import Path

import pytest

import paretrim
from controller.job import JobError

SHORT = {"model": "org/my model", "data": "org/data"}


def test_a_short_form_is_a_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.tsv").write_text("text\tlabel\n")
    job = paretrim.AutoCompressor(
        {
            "model": "org/my model",
            "data": {"source": "rows.tsv", "search": 64},
            "target": {"name": "cpu-torch", "threads": 2},
            "sequence_length": 32,
            "iterations": 7,
            "objectives": ["quality", "size_bytes"],
            "constraints": {"max_quality_drop": 0.02},
            "keep": [1.0, 0.5],
            "formats": ["fp32", "w8a8"],
            "sampler": "random",
            "mlflow": False,
        }
    ).job
    assert (job.name, job.model.id, job.search.trials, job.search.sampler) == ("my-model", "org/my model", 7, "random")
    assert job.data.source == str(tmp_path / "rows.tsv")
    assert (job.target.name, job.target.threads, job.target.sequence_length) == ("cpu-torch", 2, 32)
    assert (job.space.keep, job.space.formats) == ((1.0, 0.5), ("fp32", "w8a8"))
    assert job.objectives == ("quality", "size_bytes")
    assert job.constraints.max_quality_drop == 0.02
    assert not job.mlflow.enabled
    assert job.storage == f"sqlite:///{tmp_path}/.paretrim/paretrim.db"


def test_what_is_left_out_is_the_jobs_default() -> None:
    short = paretrim.AutoCompressor(SHORT).job
    assert (short.search.trials, short.search.sampler) == (100, "frontier")
    assert short.objectives == ("quality", "latency_ms")
    assert short.space.formats is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iteration": 5}, "iteration: unknown key; did you mean 'iterations'?"),
        ({"modle": "x"}, "did you mean 'model'?"),
        (
            {"constraints": {"max_latncy_ms": 1.0}},
            "max_latncy_ms: unknown key; did you mean 'max_latency_ms'?",
        ),
        ({"target": "cpu-onnxruntim"}, "did you mean 'cpu-onnxruntime'?"),
        ({"objectives": ["quality"]}, "at least one of latency_ms"),
        ({"iterations": 0}, "iterations: must be greater than or equal to 1; got 0"),
        ({"data": {"sorce": "x"}}, "did you mean 'source'?"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(JobError) as caught:
        paretrim.AutoCompressor({**SHORT, **changes})
    assert message in str(caught.value)
    assert str(caught.value).startswith("the configuration has")


def test_what_is_missing_or_no_mapping_is_named() -> None:
    with pytest.raises(JobError, match="data: required, and missing"):
        paretrim.AutoCompressor({"model": "x"})
    with pytest.raises(JobError, match="must be a mapping of keys to values; got list"):
        paretrim.AutoCompressor([1])
