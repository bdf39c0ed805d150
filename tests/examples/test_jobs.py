"""Every example job, run on a tiny model of its kind with the space, the target and the objectives that it names."""

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_searches import search

from controller.export import run_export
from controller.job import JobSpec
from controller.job_file import load_job
from controller.preparation import Description, describe
from controller.search_result import load_front
from evaluators.latency.table import Entry, LatencyTable, Provenance
from workers.profiling.required import required_operators
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu

if TYPE_CHECKING:
    from conftest import TinyJob

EXAMPLES = Path(__file__).parents[2] / "examples"
_DECODER = {"vocab_size": 256, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_DECODER |= {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64, "max_position_embeddings": 128}
_DECODER |= {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
_SMALL = {"calibration": 24, "search": 32, "holdout": 32}


def write_language_model(folder: Path, name: str, text: Path) -> None:
    """A decoder of bytes, trained for a moment: a random one is worse than guessing, and no search begins with that."""
    import torch
    import transformers
    from torch.nn import functional

    generator = random.Random(0)
    pairs = [f"{digit}{chr(97 + digit)}" for digit in range(10)]
    text.write_text("".join(generator.choice(pairs) for _ in range(8000)))
    torch.manual_seed(0)
    classes = {"glm": ("GlmConfig", "GlmForCausalLM"), "llama": ("LlamaConfig", "LlamaForCausalLM")}
    config, model_class = (getattr(transformers, found) for found in classes[name])
    model = model_class(config(**_DECODER, **({"attention_bias": True} if name == "glm" else {})))
    tokens = torch.tensor(list(text.read_bytes())[:4096]).view(64, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(40):
        batch = tokens[8 * (step % 8) : 8 * (step % 8) + 8]
        logits = model(input_ids=batch).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) / math.log(2) < 6
    model.save_pretrained(folder)


def invented_table(description: Description, path: Path) -> None:
    entries = [
        Entry(
            kind=operator.kind,
            format=operator.format,
            function=operator.function,
            axes=dict(operator.axes),
            median_ms=1e-3 + 1e-7 * math.prod(dict(operator.axes).values()),
            spread_ms=1e-4,
            repeats=10,
            working_set_bytes=0,
        )
        for operator in required_operators(description.space, description.workload)
    ]
    provenance = Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=1)
    LatencyTable(
        target=description.spec.target.name,
        fingerprint=OnnxRuntimeCpu(1).fingerprint(),
        provenance=provenance,
        entries=tuple(entries),
    ).save(path)


def small(example: str, folder: Path) -> JobSpec:
    """The example's job in a folder that holds its model and data, with fewer rows and trials, on invented times."""
    shutil.copy(EXAMPLES / f"{example}.yaml", folder / "job.yaml")
    job = load_job(folder / "job.yaml")
    job = job.model_copy(
        update={
            "data": job.data.model_copy(update=_SMALL),
            "search": job.search.model_copy(update={"trials": 3}),
            "storage": f"sqlite:///{folder}/paretrim.db",
        }
    )
    invented_table(describe(job), folder / "table.json")
    return job.model_copy(update={"target": job.target.model_copy(update={"table": folder / "table.json"})})


def search_small(job: JobSpec) -> dict[str, Any]:
    search(job)
    result = load_front(job.name, job.storage)
    assert result.front
    return result.to_dict()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["glm", "llama"])
def test_language_models_are_searched_by_perplexity_and_exported(name: str, folder: Path) -> None:
    write_language_model(folder / "models" / name, name, folder / "data" / "text.txt")
    job = small(f"{name}_text", folder)
    result = search_small(job)
    assert result["metric"] == "neg_bits_per_byte"
    report = run_export(job.name, job.storage, pick=None, trial=result["front"][-1]["trial"], out=folder / "best")
    assert report.exported_quality == pytest.approx(report.searched_quality, abs=0.02)
    assert (folder / "best" / "model.onnx").exists()


def text_rows(folder: Path, tiny: "TinyJob") -> None:
    shutil.copytree(tiny.model.id, folder / "models" / "sentiment")
    shutil.copy(tiny.data.source, folder / "data" / "dev.tsv")


def image_rows(folder: Path, tiny: "TinyJob") -> None:
    shutil.copytree(tiny.model.id, folder / "models" / "vit")
    shutil.copy(tiny.data.source, folder / "data" / "images.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "fixture", "write", "metric"),
    [("sentiment", "tiny_text", text_rows, "accuracy"), ("vit_images", "tiny_image", image_rows, "fidelity")],
)
def test_classifiers_are_searched(
    example: str,
    fixture: str,
    write: Callable[[Path, "TinyJob"], None],
    metric: str,
    folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    write(folder, request.getfixturevalue(fixture))
    result = search_small(small(example, folder))
    assert result["metric"] == metric
    assert result["baselines"][0]["name"] == "dense"
    json.dumps(result, allow_nan=False)
