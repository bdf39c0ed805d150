"""Tiny classifiers with an early exit: what the search split promised is what the artifact does."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from search_spaces.policy import Choice, Policy
from workers.export import artifact
from workers.export.artifact import ArtifactError, ExportRequest, export_artifact
from workers.export.card import render_card
from workers.export.early_exit.branch import graphs_of
from workers.export.early_exit.exiting_model import EarlyExit, exiting_forward
from workers.export.early_exit.head import entropy
from workers.export.early_exit.plan import EarlyExitError, plan_early_exit
from workers.export.loading import load_folder
from workers.export.report import ExportReport
from workers.protocol import Split, WorkerSpec
from workers.targets.onnxruntime_cpu import open_session
from workers.trial import TrialWorker

TOLERANCE = 0.2


@dataclass(frozen=True)
class Planned:
    spec: WorkerSpec
    worker: TrialWorker
    policy: Policy
    early_exit: EarlyExit


@pytest.fixture(scope="module", params=["tiny_text", pytest.param("tiny_image", marks=pytest.mark.slow)])
def planned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    spec = request.getfixturevalue(request.param).spec(tmp_path_factory.mktemp("cache"))
    worker = TrialWorker(spec)
    changed = {"layer.0.attention": Choice(3, "w8a8"), "layer.1.feed_forward": Choice(48, "w8a8")}
    policy = Policy({u.name: changed.get(u.name, Choice(u.groups, "fp32")) for u in worker.structure.units})
    return Planned(spec, worker, policy, plan_early_exit(worker, policy, tolerance=TOLERANCE))


def export(planned: Planned, out: Path) -> ExportReport:
    def card(report: ExportReport) -> str:
        structure = planned.worker.structure
        return render_card(report, spec=planned.spec, structure=structure, policy=planned.policy, command="again")

    request = ExportRequest(
        spec=planned.spec,
        study="tiny",
        trial=7,
        policy=planned.policy,
        out=out,
        render_card=card,
        early_exit=planned.early_exit,
    )
    return export_artifact(planned.worker, request)


@pytest.fixture(scope="module")
def released(planned: Planned, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Path]:
    out = tmp_path_factory.mktemp("released") / "artifact"
    return export(planned, out), out


def test_the_forecast_is_what_the_searched_model_does(planned: Planned) -> None:
    worker, forecast = planned.worker, planned.early_exit.forecast
    left = []
    right = []
    model = worker.model_of(planned.policy)
    for example in worker.splits.search:
        inputs, hidden = worker.task.collate([example]), {}
        hook = model.get_submodule(forecast.block).register_forward_hook(
            lambda _module, _inputs, output, found=hidden: found.update(at=output)
        )
        with torch.inference_mode():
            logits = model(**inputs).logits
            output = hidden["at"][0] if isinstance(hidden["at"], tuple) else hidden["at"]
            early = planned.early_exit.head(output, inputs.get("attention_mask"))
        hook.remove()
        left.append(float(entropy(early)) <= forecast.threshold_nats)
        right.append(int((early if left[-1] else logits).argmax()) == example.label)
    assert forecast.share == pytest.approx(np.mean(left))
    assert forecast.quality == pytest.approx(np.mean(right))
    assert forecast.quality >= forecast.whole_quality - TOLERANCE
    share = forecast.share
    assert forecast.expected_ms == pytest.approx(share * forecast.early_ms + (1 - share) * forecast.late_ms)
    assert forecast.early_ms < forecast.whole_ms == worker.costs.costs(planned.policy).latency_ms < forecast.late_ms
    assert forecast.blocks == 3


def test_the_artifact_leaves_as_the_searched_model_does(planned: Planned, released: tuple[ExportReport, Path]) -> None:
    worker = planned.worker
    session = open_session(released[1] / "model.onnx", threads=1)
    outputs = worker.evaluator(Split.HOLDOUT).run(exiting_forward(worker.model_of(planned.policy), planned.early_exit))
    left = 0
    for row, example in enumerate(worker.splits.holdout):
        inputs = worker.task.collate([example])
        logits, left_early = session.run(None, {n.name: inputs[n.name].numpy() for n in session.get_inputs()})
        assert np.abs(logits[0] - outputs.logits_MC[row].numpy()).max() < 0.1
        left += bool(left_early)
    assert released[0].early_exit is not None
    assert released[0].early_exit.measured.shares["holdout"] == pytest.approx(left / len(worker.splits.holdout))


def test_a_call_of_several_leaves_when_all_are_clear(planned: Planned, released: tuple[ExportReport, Path]) -> None:
    session = open_session(released[1] / "model.onnx", threads=1)
    names = [node.name for node in session.get_inputs()]

    def leaves(*examples: object) -> bool:
        inputs = planned.worker.task.collate(examples)  # type: ignore[arg-type]
        return bool(session.run(["left_early"], {name: inputs[name].numpy() for name in names})[0])

    examples = planned.worker.splits.search
    sure, unsure = (next(e for e in examples if leaves(e) is wanted) for wanted in (True, False))
    assert leaves(sure, sure)
    assert not leaves(sure, unsure)


def test_report_and_card_set_promise_beside_proof(planned: Planned, released: tuple[ExportReport, Path]) -> None:
    report, out = released
    assert ExportReport.model_validate_json((out / "report.json").read_text()) == report
    assert report.early_exit is not None
    assert report.early_exit.forecast == planned.early_exit.forecast
    found = report.early_exit.measured
    assert found.shares["search"] == pytest.approx(report.early_exit.forecast.share, abs=0.05)
    assert found.examples == 64
    assert min(found.mean_ms, found.whole_mean_ms, found.dense_mean_ms) > 0
    searched = planned.worker.outputs(planned.policy, Split.HOLDOUT).per_example_N
    assert report.early_exit.whole_metric["holdout"] == pytest.approx(float(searched.mean()))
    assert report.splits["search"].metric == pytest.approx(report.early_exit.forecast.quality, abs=0.05)
    card = (out / "README.md").read_text()
    assert f"after block {planned.early_exit.forecast.blocks_run} of 3" in card
    assert f"| share that leaves early | {report.early_exit.forecast.share:.1%} |" in card


def test_quantized_layers_are_counted_in_the_branch_too(released: tuple[ExportReport, Path]) -> None:
    assert sum(released[0].weights.quantized.values()) == 6
    outer = onnx.load(released[1] / "model.onnx").graph
    assert sum(node.op_type == "MatMulInteger" for node in outer.node) < 6


def test_all_graphs_name_their_axes_as_the_task_does(planned: Planned, released: tuple[ExportReport, Path]) -> None:
    graphs = list(graphs_of(onnx.load(released[1] / "model.onnx").graph))
    values = [value for graph in graphs for value in (*graph.input, *graph.output, *graph.value_info)]
    found = {axis.dim_param for value in values for axis in value.type.tensor_type.shape.dim if axis.dim_param}
    assert len(graphs) == 3
    assert found == {
        name for value in graphs[0].input for name in planned.worker.task.dynamic_axes[value.name].values()
    }


def test_the_hugging_face_form_is_the_whole_model(planned: Planned, released: tuple[ExportReport, Path]) -> None:
    report, out = released
    assert report.folder is not None
    assert report.folder.max_logit_difference < 1e-4
    inputs = planned.worker.task.random_inputs(1, 9, seed=2)
    with torch.inference_mode():
        loaded = load_folder(out)(**inputs).logits
        searched = planned.worker.model_of(planned.policy)(**inputs).logits
    np.testing.assert_array_equal(loaded.numpy(), searched.numpy())


def test_a_process_without_paretrim_runs_it(planned: Planned, released: tuple[ExportReport, Path]) -> None:
    inputs = planned.worker.task.collate(planned.worker.splits.holdout[:1])
    feeds = {name: tensor.tolist() for name, tensor in inputs.items()}
    program = """
import json, sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
types = {"tensor(int64)": numpy.int64, "tensor(float)": numpy.float32}
feeds = json.loads(sys.argv[2])
logits, left = session.run(None, {n.name: numpy.array(feeds[n.name], types[n.type]) for n in session.get_inputs()})
print(json.dumps([logits.tolist(), bool(left)]))
"""
    command = [sys.executable, "-I", "-c", program, str(released[1] / "model.onnx"), json.dumps(feeds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    logits, left = json.loads(done.stdout)
    forward = exiting_forward(planned.worker.model_of(planned.policy), planned.early_exit)
    np.testing.assert_allclose(logits, forward(inputs, 1).numpy(), atol=0.1)
    assert isinstance(left, bool)


@pytest.mark.slow
@pytest.mark.parametrize("planned", ["tiny_image"], indirect=True, scope="module")
def test_nothing_is_released_where_others_leave_than_were_searched(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "METRIC_TOLERANCE", 0.5)
    forecast = planned.early_exit.forecast.model_copy(update={"share": planned.early_exit.forecast.share - 0.6})
    wrong = Planned(
        planned.spec, planned.worker, planned.policy, EarlyExit(head=planned.early_exit.head, forecast=forecast)
    )
    with pytest.raises(ArtifactError, match=r"of the search split leave early, searched .* more than 0\.5000 apart"):
        export(wrong, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_exit_that_gains_nothing_is_refused(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.export.early_exit.choice.LEAST_GAIN", 1.0)
    with pytest.raises(EarlyExitError, match=r"behind none of 2 blocks .* at most 0 points of accuracy lost; allow"):
        plan_early_exit(planned.worker, planned.policy, tolerance=0.0)
