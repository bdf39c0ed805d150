"""The example job for sentence embeddings, run on a tiny encoder: searched by fidelity, exported, verified, loaded."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from tiny_searches import search

import paretrim
from controller.export import run_export
from controller.job_file import load_job
from workers.export.report import ExportReport

if TYPE_CHECKING:
    from conftest import TinyJob

EXAMPLE = Path(__file__).parents[2] / "examples" / "sentence_embeddings.yaml"


@pytest.mark.slow
def test_sentence_encoders_are_searched_exported_and_loaded(tiny_pairs: "TinyJob", tmp_path: Path) -> None:
    example = load_job(EXAMPLE)
    job = example.model_copy(
        update={
            "model": tiny_pairs.model,
            "data": tiny_pairs.data,
            "target": example.target.model_copy(
                update={"table": tiny_pairs.table, "sequence_length": tiny_pairs.sequence_length}
            ),
            "search": example.search.model_copy(update={"trials": 4}),
            "storage": f"sqlite:///{tmp_path}/paretrim.db",
        }
    )
    search(job)
    result = paretrim.front(job.name, storage=job.storage).to_dict()
    assert result["metric"] == "fidelity"
    assert result["baselines"][0]["quality"] == 1
    trial = min(result["front"], key=lambda member: member["latency_ms"])["trial"]
    run_export(job.name, job.storage, pick=None, trial=trial, out=tmp_path / "best")

    report = ExportReport.model_validate_json((tmp_path / "best" / "report.json").read_text())
    assert report.metric == "spearman_cosine"
    assert report.dense_metric["holdout"] > 0.6
    assert abs(report.metric_gap) <= report.metric_tolerance
    assert report.folder is not None
    tokens = {"input_ids": torch.tensor([[2, 10, 11, 12, 3]])}
    with torch.inference_mode():
        embedding = paretrim.load(tmp_path / "best")(**tokens).logits
        dense = transformers.BertModel.from_pretrained(tiny_pairs.model.id)(**tokens).last_hidden_state.mean(1)
    assert embedding.norm().item() == pytest.approx(1, abs=1e-5)
    assert torch.cosine_similarity(embedding, dense).item() > 0.5
