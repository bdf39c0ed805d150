"""Export of tiny models, mixed and pruned: the file computes what was searched, and is released whole or not at all."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from search_spaces.policy import Choice, Policy
from search_spaces.units import UnitKind
from workers.export import artifact
from workers.export.artifact import ArtifactError, ExportRequest, export_artifact
from workers.export.card import render_card
from workers.export.loading import load_folder
from workers.export.onnx import ExportError, export_onnx
from workers.export.report import ExportReport
from workers.export.verify import VerifyError
from workers.protocol import Split, WorkerSpec
from workers.targets.onnxruntime_cpu import open_session
from workers.trial import TrialWorker


@dataclass(frozen=True)
class Exported:
    spec: WorkerSpec
    worker: TrialWorker
    policy: Policy
    mixed: Path
    dense: Path


def _mixed_policy(worker: TrialWorker) -> Policy:
    """All formats, several keeps, one branch of each kind left out, embedding tables in 8 bits."""
    tables = {u.name: Choice(1, "w8") for u in worker.structure.units if u.kind is UnitKind.EMBEDDING}
    return Policy(
        {
            **tables,
            "layer.0.attention": Choice(3, "w8a8"),
            "layer.0.feed_forward": Choice(0, "fp32"),
            "layer.1.attention": Choice(0, "fp32"),
            "layer.1.feed_forward": Choice(48, "w4"),
        }
    )


@pytest.fixture(scope="module", params=["tiny_text", "tiny_image"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    spec = request.getfixturevalue(request.param).spec(folder / "cache")
    worker = TrialWorker(spec)
    policy = _mixed_policy(worker)
    inputs = worker.task.random_inputs(2, 8, seed=0)
    paths = {"mixed": folder / "mixed.onnx", "dense": folder / "dense.onnx"}
    export_onnx(worker.model_of(policy), worker.task, inputs, paths["mixed"])
    export_onnx(worker.model_of(worker.space.dense_policy()), worker.task, inputs, paths["dense"])
    return Exported(spec, worker, policy, **paths)


def _request(exported: Exported, out: Path, **fields: Any) -> ExportRequest:
    def card(report: ExportReport) -> str:
        return render_card(
            report,
            spec=exported.spec,
            structure=exported.worker.structure,
            policy=exported.policy,
            command="paretrim export tiny --trial 7 --out OUT",
        )

    values = {"spec": exported.spec, "study": "tiny", "trial": 7, "policy": exported.policy, "render_card": card}
    return ExportRequest(out=out, **{**values, **fields})


class TestOnnx:
    @pytest.mark.parametrize(("batch", "tokens"), [(1, 5), (3, 12)])
    def test_dense_file_computes_the_dense_model_at_any_shape(
        self, exported: Exported, batch: int, tokens: int
    ) -> None:
        inputs = exported.worker.task.random_inputs(batch, tokens, seed=1)
        with torch.inference_mode():
            searched = exported.worker.model_of(exported.worker.space.dense_policy())(**inputs).logits
        np.testing.assert_allclose(_run(exported.dense, inputs), searched.numpy(), rtol=1e-4, atol=1e-4)

    def test_padded_batches_of_other_lengths_are_right(self, exported: Exported) -> None:
        """The older exporter fixed the mask of the traced batch without a word."""
        examples = exported.worker.splits.search[:7]
        inputs = exported.worker.task.collate(examples)
        with torch.inference_mode():
            searched = exported.worker.model_of(exported.worker.space.dense_policy())(**inputs).logits
        np.testing.assert_allclose(_run(exported.dense, inputs), searched.numpy(), rtol=1e-4, atol=1e-4)

    def test_mixed_file_computes_what_was_searched(self, exported: Exported) -> None:
        searched = exported.worker.logits(exported.policy, Split.SEARCH).numpy()
        session = open_session(exported.mixed, threads=1)
        names = [node.name for node in session.get_inputs()]
        for row, example in enumerate(exported.worker.splits.search[:24]):
            inputs = exported.worker.task.collate([example])
            (logits,) = session.run(None, {name: inputs[name].numpy() for name in names})
            # A code may flip where the two round a value on an edge.
            assert np.abs(logits[0] - searched[row]).max() < 0.03 * searched.std()

    def test_kernels_are_those_of_the_formats(self, exported: Exported) -> None:
        operators = [node.op_type for node in onnx.load(exported.mixed).graph.node]
        assert operators.count("MatMulInteger") == 4
        assert operators.count("MatMulNBits") == 2
        assert operators.count("Softmax") == 1
        dense = [node.op_type for node in onnx.load(exported.dense).graph.node]
        assert dense.count("Softmax") == 2
        assert not {"MatMulInteger", "MatMulNBits"} & set(dense)

    def test_pruned_weights_are_small_in_the_file(self, exported: Exported) -> None:
        policy, dense = exported.policy, exported.worker.space.dense_policy()
        sizes = [exported.worker.costs.costs(p).size_bytes for p in (policy, dense)]
        saved = exported.dense.stat().st_size - exported.mixed.stat().st_size
        assert saved == pytest.approx(sizes[1] - sizes[0], rel=0.25)

    def test_model_is_as_before_afterwards(self, exported: Exported, tmp_path: Path) -> None:
        before = exported.worker.logits(exported.policy, Split.SEARCH)
        model = exported.worker.model_of(exported.policy)
        modules = dict(model.named_modules())
        inputs = exported.worker.task.random_inputs(2, 8, seed=0)
        with pytest.raises(ExportError, match="the model has no ONNX form"):
            export_onnx(_Hostile(model), exported.worker.task, inputs, tmp_path / "m.onnx")
        assert not list(tmp_path.iterdir())
        assert all(module is modules[name] for name, module in model.named_modules())
        assert exported.worker.logits(exported.policy, Split.SEARCH).equal(before)


class _Hostile(torch.nn.Module):
    """A model whose control flow depends on values, which no exporter can trace."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> Any:
        found = self.model(**inputs)
        return found if found.logits.sum() > 0 else self.model(**inputs)


def _run(path: Path, inputs: Mapping[str, torch.Tensor]) -> Any:
    session = open_session(path, threads=1)
    return session.run(None, {node.name: inputs[node.name].numpy() for node in session.get_inputs()})[0]


@pytest.fixture(scope="module")
def released(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Path]:
    out = tmp_path_factory.mktemp("released") / "artifact"
    out.mkdir()
    return export_artifact(exported.worker, _request(exported, out)), out


class TestArtifact:
    def test_folder_is_whole(self, exported: Exported, released: tuple[ExportReport, Path]) -> None:
        _, out = released
        names = {path.name for path in out.iterdir()}
        assert {"model.onnx", "compressed.safetensors", "config.json", "policy.json", "report.json"} <= names
        assert {"README.md", "policy.svg"} <= names
        assert names & {"tokenizer.json", "preprocessor_config.json"}
        assert Policy.from_json((out / "policy.json").read_text()) == exported.policy
        assert [path.name for path in out.parent.iterdir()] == ["artifact"]

    def test_report_sets_searched_beside_exported(
        self, exported: Exported, released: tuple[ExportReport, Path]
    ) -> None:
        report, out = released
        assert ExportReport.model_validate_json((out / "report.json").read_text()) == report
        assert (report.study, report.trial, report.policy_digest) == ("tiny", 7, exported.policy.digest)
        assert report.dense_metric == {"search": 1.0, "holdout": 1.0}
        for split in (Split.SEARCH, Split.HOLDOUT):
            measured = report.splits[split.value]
            evaluator = exported.worker.evaluator(split)
            searched = evaluator.score(exported.worker.outputs(exported.policy, split)).value
            assert measured.searched_metric == pytest.approx(searched)
            assert abs(measured.metric - searched) <= report.metric_tolerance
            assert measured.examples == 64
            assert measured.cosine > 0.999
            assert measured.mean_logit_difference <= measured.max_logit_difference < 0.1
        costs = exported.worker.costs.costs(exported.policy)
        assert (report.latency_predicted_ms, report.size_predicted_bytes) == (costs.latency_ms, costs.size_bytes)
        assert report.latency_error == pytest.approx(report.latency_undisturbed_ms / costs.latency_ms - 1)
        assert 0 < report.latency_measured_ms <= report.latency_p99_ms
        assert report.dense_latency_measured_ms is not None
        assert report.size_file_bytes == (out / "model.onnx").stat().st_size
        assert 0 < report.loaded_bytes < report.peak_memory_bytes
        assert report.throughput.clients >= 1
        assert report.throughput.examples_per_s > 0
        assert report.runtime.startswith("onnxruntime ")

    def test_the_folder_beside_the_file_is_proven_too(
        self, exported: Exported, released: tuple[ExportReport, Path]
    ) -> None:
        report, out = released
        assert report.folder is not None
        assert report.folder.examples == 64
        assert report.folder.max_logit_difference < 1e-4
        inputs = exported.worker.task.random_inputs(1, 9, seed=2)
        with torch.inference_mode():
            loaded = load_folder(out)(**inputs).logits
            searched = exported.worker.model_of(exported.policy)(**inputs).logits
        np.testing.assert_array_equal(loaded.numpy(), searched.numpy())

    def test_weights_are_recounted_from_the_file(self, exported: Exported, released: tuple[ExportReport, Path]) -> None:
        report, _ = released
        counted = dict(report.weights.quantized)
        assert sum(n for name, n in counted.items() if name.startswith("int8 ")) == 4
        assert sum(n for name, n in counted.items() if name.startswith("int4 ")) == 2
        assert {"int4 48x32", "int4 32x48"} <= counted.keys()
        predicted = exported.worker.costs.costs(exported.policy).size_bytes
        assert report.weights.bytes == pytest.approx(predicted, rel=0.1)

    def test_card_names_operators_of_the_runtime_where_the_file_has_some(
        self, exported: Exported, released: tuple[ExportReport, Path]
    ) -> None:
        report, out = released
        assert report.weights.runtime_operators == ("MatMulNBits",)
        assert "the model, opset 20 with operators of ONNX Runtime: `MatMulNBits`\n" in (out / "README.md").read_text()
        without = report.weights.model_copy(update={"runtime_operators": ()})
        card = _request(exported, out).render_card(report.model_copy(update={"weights": without}))
        assert "- `model.onnx`: the model, opset 20\n" in card

    def test_classes_add_up_to_the_metric(self, released: tuple[ExportReport, Path]) -> None:
        report, _ = released
        assert report.classes is not None
        holdout, confusion = report.splits["holdout"], np.array(report.classes.confusion)
        assert confusion.sum() == holdout.examples
        assert np.trace(confusion) / holdout.examples == pytest.approx(holdout.metric)

    def test_card_is_readable_and_says_what_was_measured(
        self, exported: Exported, released: tuple[ExportReport, Path]
    ) -> None:
        import yaml

        report, out = released
        _, metadata, text = (out / "README.md").read_text().split("---\n", 2)
        fields = yaml.safe_load(metadata)
        assert fields["base_model"] == Path(exported.spec.model.id).name
        results = fields["model-index"][0]["results"][0]
        assert results["metrics"][0]["value"] == pytest.approx(report.splits["holdout"].metric, abs=1e-6)
        assert "| layer.0.attention | 3 of 4 | `█████████···` | w8a8 |" in text
        assert "| layer.0.feed_forward | 0 of 64 | `············` | left out |" in text
        assert "paretrim export tiny --trial 7 --out OUT" in text
        assert report.latency_low_ms is None, "the table has no correction"
        assert f"| {report.latency_predicted_ms:.3f} (error not measured) |" in text

    def test_card_has_the_interval_of_a_corrected_table(
        self, exported: Exported, released: tuple[ExportReport, Path]
    ) -> None:
        bounds = {"latency_predicted_ms": 5.0, "latency_low_ms": 4.75, "latency_high_ms": 5.25}
        report = released[0].model_copy(update=bounds)
        text = _request(exported, Path("out")).render_card(report)
        assert "| 5.000 (90 % interval 4.750 to 5.250) |" in text

    def test_file_in_the_artifact_is_the_one_that_was_exported(
        self, exported: Exported, released: tuple[ExportReport, Path]
    ) -> None:
        inputs = exported.worker.task.random_inputs(1, 9, seed=2)
        np.testing.assert_array_equal(_run(released[1] / "model.onnx", inputs), _run(exported.mixed, inputs))


@pytest.mark.parametrize("exported", ["tiny_image"], indirect=True, scope="module")
class TestNothingIsReleased:
    """Exports are copied from the fixture here; verification is the real one."""

    @pytest.fixture(autouse=True)
    def exported_before(self, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
        def copy(model: torch.nn.Module, _task: object, _inputs: object, path: Path, **_more: object) -> None:
            shutil.copy(exported.dense if path.parent.name == "dense" else exported.mixed, path)

        monkeypatch.setattr(artifact, "export_onnx", copy)

    def test_where_logits_differ(self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifact, "COSINE_TOLERANCE", 1.1)
        with pytest.raises(ArtifactError, match=r"nothing was released: logits on the search split have a cosine of"):
            export_artifact(exported.worker, _request(exported, tmp_path / "out"))
        assert not list(tmp_path.iterdir())

    def test_where_the_file_is_another_model(self, exported: Exported, tmp_path: Path) -> None:
        policy = exported.worker.space.smallest_policy()
        with pytest.raises(ArtifactError, match="exported model is not what was searched"):
            export_artifact(exported.worker, _request(exported, tmp_path / "out", policy=policy))
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    def test_where_layers_have_other_bits(
        self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifact, "count_layers", lambda _model, _form: {"int8 32x32": 9})
        with pytest.raises(
            ArtifactError, match=r"other quantized layers than were searched \(int4 .*int8 32x32: 0 for 9"
        ):
            export_artifact(exported.worker, _request(exported, tmp_path / "out"))
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    def test_where_the_file_does_not_load(
        self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(artifact, "export_onnx", lambda _m, _t, _i, path, **_more: path.write_bytes(b"no model"))
        with pytest.raises(VerifyError, match=r"in a process of its own \(exit code 1\):(.|\n)*model\.onnx"):
            export_artifact(exported.worker, _request(exported, tmp_path / "out"))
        assert not list(tmp_path.iterdir())

    def test_where_the_export_is_interrupted(
        self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(_model: object, _task: object, _inputs: object, path: Path, **_more: object) -> None:
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(artifact, "export_onnx", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_artifact(exported.worker, _request(exported, tmp_path / "out"))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("taken", ["folder", "file"])
    def test_into_a_place_that_is_taken(self, exported: Exported, tmp_path: Path, taken: str) -> None:
        out = tmp_path / "out"
        if taken == "folder":
            out.mkdir()
        (out / "mine" if taken == "folder" else out).write_text("mine")
        with pytest.raises(ArtifactError, match="goes into a new or empty folder"):
            export_artifact(exported.worker, _request(exported, out))
        assert (out / "mine" if taken == "folder" else out).read_text() == "mine"
        assert len(list(tmp_path.iterdir())) == 1


def test_policies_of_the_fixture_are_in_the_space(exported: Exported) -> None:
    exported.worker.space.validate(exported.policy)
    assert json.loads(exported.policy.to_json())["schema_version"] == 1
