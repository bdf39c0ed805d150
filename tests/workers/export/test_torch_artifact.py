"""The artifact of a target that takes a Hugging Face folder: torch reads it with its own kernels."""

import pytest
import torch
from programs import output_of, program_in

from evaluators.latency.table import load_table
from search_spaces.policy import Choice
from workers.export.artifact import ExportRequest, export_artifact
from workers.export.card import render_card
from workers.export.loading import load_folder
from workers.targets import TargetConfig
from workers.targets.base import TARGETS, ExportForm
from workers.targets.device import DEVICES
from workers.trial import TrialWorker

COMPILED = pytest.param(
    "cpu-torch-compiled",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(TARGETS.get("cpu-torch-compiled").available() is not None, reason="needs a C++ compiler"),
    ],
)


@pytest.mark.parametrize("name", ["cpu-torch", COMPILED])
def test_a_folder_is_what_torch_runs(name, tiny_text, tmp_path):
    table = load_table(tiny_text.table)
    changes = {"target": name, "fingerprint": DEVICES.get(name)(1).fingerprint()}
    table.model_copy(update=changes).save(tmp_path / "table.json")
    target = TargetConfig(name=name, table=tmp_path / "table.json", sequence_length=tiny_text.sequence_length)
    spec = tiny_text.spec(tmp_path / "cache")
    space = spec.space.model_copy(update={"formats": ("fp32", "w8a8")})
    worker = TrialWorker(type(spec)(model=spec.model, data=spec.data, space=space, target=target, cache_dir=tmp_path))
    policy = worker.space.dense_policy().replace(
        **{"layer.0.attention": Choice(2, "w8a8"), "layer.1.feed_forward": Choice(0, "fp32")}
    )

    def card(report):
        return render_card(report, spec=worker.spec, structure=worker.structure, policy=policy, command="paretrim")

    out = tmp_path / "out"
    asked = ExportRequest(spec=worker.spec, study="tiny", trial=1, policy=policy, out=out, render_card=card)
    report = export_artifact(worker, asked)
    assert report.form is ExportForm.HUGGING_FACE
    assert report.runtime.startswith("torch ")
    assert not (out / "model.onnx").exists()
    assert report.size_file_bytes == (out / "compressed.safetensors").stat().st_size
    assert report.weights.quantized == {"int8 16x32": 3, "int8 32x16": 1}
    assert all(split.cosine > 0.999 for split in report.splits.values())
    assert report.dense_latency_measured_ms is not None
    inputs = worker.task.random_inputs(1, 8, seed=0)
    with torch.inference_mode():
        assert load_folder(out)(**inputs).logits.equal(worker.model_of(policy)(**inputs).logits)
    text = (out / "README.md").read_text()
    assert 'library_name: "transformers"' in text
    assert "`paretrim.load` loads this folder" in text
    printed = output_of(program_in(text, after="## How to run it"), out)
    (example,) = worker.task.encode(["A sentence."], [0], max_length=32)
    inputs = worker.task.collate([example])
    with torch.inference_mode():
        answer = worker.model_of(policy)(**inputs).logits
    assert printed.startswith(f"LABEL_{int(answer.argmax())} ")
    assert f'`DEVICES.get("{name}")(1).open(Path("."))`' in text
    torch.testing.assert_close(DEVICES.get(name)(1).open(out).logits(inputs), answer, rtol=0, atol=0.05)
