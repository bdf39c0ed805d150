"""Recovery of tiny models, end to end: it wins back quality, ends in the policy's formats, and goes on after a kill."""

import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evaluators.scores import QualityMeasure
from search_spaces.policy import Choice, Policy
from search_spaces.units import UnitKind
from workers.data import DataConfig, DataError, load_training
from workers.export.artifact import ExportRequest, export_artifact
from workers.export.card import render_card
from workers.protocol import Split
from workers.recover import RecoveryJob, recover
from workers.recovery import trainer as trainer_module
from workers.recovery.config import QuantizationMode, RecoveryConfig, Sparsity
from workers.recovery.state import CheckpointError
from workers.recovery.trainer import DivergedError, Trainer
from workers.trial import TrialWorker

CHILD = """
import pickle, sys
from pathlib import Path
from workers.recover import recover
from workers.trial import TrialWorker

spec, policy, config = pickle.loads(Path(sys.argv[1]).read_bytes())
recover(TrialWorker(spec), policy, config)
"""


def _policy(worker: TrialWorker) -> Policy:
    """A branch left out, both integer formats, most heads and channels gone."""
    kept = {
        "layer.0.attention": Choice(1, "w8a8"),
        "layer.0.feed_forward": Choice(16, "w4"),
        "layer.1.attention": Choice(2, "w4"),
        "layer.1.feed_forward": Choice(0, "fp32"),
    }
    return Policy(kept | {u.name: Choice(1, "w8") for u in worker.structure.units if u.kind is UnitKind.EMBEDDING})


@pytest.fixture(scope="module", params=["tiny_text", "tiny_image"])
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def worker(job: Any, tmp_path_factory: pytest.TempPathFactory) -> TrialWorker:
    return TrialWorker(job.spec(tmp_path_factory.mktemp("cache")))


def _config(worker: TrialWorker, **changes: Any) -> RecoveryConfig:
    fields = {"source": worker.spec.data.source, "epochs": 12, "batch": 12, "learning_rate": 3e-3, "evaluations": 1}
    return RecoveryConfig(**{**fields, "patience": 100, **changes})


def _state(model: nn.Module) -> Mapping[str, Tensor]:
    return model.state_dict()


def _assert_equal(model: nn.Module, other: nn.Module) -> None:
    mine, its = _state(model), _state(other)
    assert mine.keys() == its.keys()
    assert all(tensor.equal(its[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("mode", list(QuantizationMode))
def test_a_harshly_pruned_model_gets_better_in_its_own_formats(worker: TrialWorker, mode: QuantizationMode) -> None:
    policy = _policy(worker)
    found = recover(worker, policy, _config(worker, quantization=mode, hidden=0.5))
    report = found.report
    assert report.after["search"] > report.before["search"]
    searched = worker.separate_model(policy)
    kinds = {name: type(module) for name, module in searched.named_modules()}
    assert {name: type(module) for name, module in found.model.named_modules()} == kinds
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in _state(searched).items()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in _state(found.model).items()} == shapes


def test_what_was_trained_once_is_read(worker: TrialWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, config = _policy(worker), _config(worker, epochs=2)
    first = recover(worker, policy, config)
    monkeypatch.setattr(Trainer, "run_to_evaluation", lambda self: pytest.fail("it was trained before"))
    again = recover(worker, policy, config)
    _assert_equal(first.model, again.model)
    assert again.report == first.report
    assert Policy.from_json(again.report.policy) == policy


def test_a_damaged_result_is_trained_again(worker: TrialWorker) -> None:
    policy, config = _policy(worker), _config(worker, epochs=1, seed=7)
    first = recover(worker, policy, config)
    path = RecoveryJob(worker, policy, config).path
    path.write_bytes(path.read_bytes()[:1000])
    _assert_equal(first.model, recover(worker, policy, config).model)


def test_training_never_ships_what_is_worse_on_the_search_split(worker: TrialWorker) -> None:
    config = _config(worker, epochs=1, learning_rate=1.0, beta=0.0)
    report = recover(worker, _policy(worker), config).report
    assert report.after["search"] >= report.before["search"]
    assert report.history[0] == (0, report.before["search"])


def test_training_stops_when_scores_stop_rising(worker: TrialWorker) -> None:
    config = _config(worker, epochs=50, learning_rate=1e-12, patience=3)
    report = recover(worker, _policy(worker), config).report
    assert report.steps > report.history[-1][0]
    assert len(report.history) <= 1 + 2 * 3


def test_the_holdout_is_looked_at_only_when_training_is_over(
    worker: TrialWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []
    real = TrialWorker.quality_of

    def spy(self: TrialWorker, model: nn.Module, split: Split, measure: QualityMeasure | None = None) -> Any:
        seen.append(split)
        return real(self, model, split, measure)

    monkeypatch.setattr(TrialWorker, "quality_of", spy)
    recover(worker, _policy(worker), _config(worker, epochs=3, seed=3))
    assert seen == [Split.SEARCH] * 4 + [Split.SEARCH, Split.HOLDOUT] * 2


def test_training_rows_are_in_no_split_that_is_scored(worker: TrialWorker) -> None:
    spec = worker.spec
    source = spec.data.source
    rows = load_training(spec.data, worker.task, source=source, examples=None, seed=spec.seed)
    scored = [*worker.splits.search, *worker.splits.holdout]
    name = next(iter(rows[0].inputs))
    taken = {str(example.inputs[name].tolist()) for example in scored}
    assert not taken & {str(example.inputs[name].tolist()) for example in rows}
    few = load_training(spec.data, worker.task, source=source, examples=5, seed=spec.seed)
    assert len(few) == 5
    everything = DataConfig(**{**spec.data.model_dump(), "calibration": 1, "search": 100, "holdout": len(rows) - 5})
    with pytest.raises((DataError, ValueError), match=r"the splits need|no split scores"):
        load_training(
            everything.model_copy(update={"holdout": 10_000}), worker.task, source=source, examples=None, seed=0
        )


def test_a_loss_that_is_nan_once_is_taken_back_with_half_the_step(
    worker: TrialWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = RecoveryJob(worker, _policy(worker), _config(worker, epochs=2))
    training = job.trainer()
    real, calls = trainer_module.distillation_loss, []

    def sometimes(*arguments: Any, **named: Any) -> Tensor:
        calls.append(1)
        return real(*arguments, **named) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(trainer_module, "distillation_loss", sometimes)
    while not training.finished:
        training.run_to_evaluation()
    assert (training.counters.rollbacks, training.counters.rate_factor) == (1, 0.5)
    assert training.counters.step == training.steps
    assert all(bool(tensor.isfinite().all()) for tensor in training.best_tensors()[0].values())


def test_a_loss_that_stays_nan_is_a_failure_of_its_own(worker: TrialWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    training = RecoveryJob(worker, _policy(worker), _config(worker)).trainer()
    start = training.best_tensors()[0]
    monkeypatch.setattr(trainer_module, "distillation_loss", lambda *_, **__: torch.tensor(float("nan")))
    with pytest.raises(DivergedError, match=r"got nan at step 0 of .* 3 returns .* lower learning_rate"):
        training.run_to_evaluation()
    assert all(tensor.equal(training.best_tensors()[0][name]) for name, tensor in start.items())


def test_going_on_from_a_checkpoint_gives_the_same_bits(worker: TrialWorker, tmp_path: Path) -> None:
    job = RecoveryJob(worker, _policy(worker), _config(worker, epochs=4, quantization=QuantizationMode.PROGRESSIVE))
    whole, part = job.trainer(), job.trainer(tmp_path / "checkpoint")
    while not whole.finished:
        whole.run_to_evaluation()
    part.run_to_evaluation()
    resumed = job.trainer(tmp_path / "checkpoint")
    assert resumed.counters.step == part.counters.step > 0
    while not resumed.finished:
        resumed.run_to_evaluation()
    assert resumed.counters == whole.counters
    _assert_equal(resumed.best_model(), whole.best_model())


def test_a_checkpoint_of_another_training_is_refused(worker: TrialWorker, tmp_path: Path) -> None:
    policy = _policy(worker)
    RecoveryJob(worker, policy, _config(worker)).trainer(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="belongs to another training"):
        RecoveryJob(worker, policy, _config(worker, seed=1)).trainer(tmp_path / "checkpoint")
    (tmp_path / "checkpoint").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="no checkpoint that can be read"):
        RecoveryJob(worker, policy, _config(worker)).trainer(tmp_path / "checkpoint")


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_model(job: Any, tmp_path: Path) -> None:
    spec = job.spec(tmp_path / "killed")
    worker = TrialWorker(spec)
    policy, config = _policy(worker), _config(worker, epochs=40)
    request = tmp_path / "request"
    request.write_bytes(pickle.dumps((spec, policy, config)))
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, str(script), str(request)], env={"PYTHONPATH": str(root)})
    checkpoint = RecoveryJob(worker, policy, config).checkpoint
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    resumed = recover(worker, policy, config)
    other = TrialWorker(job.spec(tmp_path / "whole"))
    whole = recover(other, policy, config)
    assert resumed.report == whole.report
    _assert_equal(resumed.model, whole.model)


@pytest.mark.parametrize("sparsity", [Sparsity.GROUP_LASSO, Sparsity.RIGL])
def test_the_dense_model_can_be_made_sparse_first(worker: TrialWorker, sparsity: Sparsity) -> None:
    report = recover(worker, _policy(worker), _config(worker, epochs=3, sparsity=sparsity)).report
    assert report.after["search"] >= report.before["search"]


@pytest.mark.parametrize(
    "job", ["tiny_text", pytest.param("tiny_image", marks=pytest.mark.slow)], indirect=True, scope="module"
)
def test_the_artifact_is_the_trained_model(worker: TrialWorker, tmp_path: Path) -> None:
    policy = _policy(worker)
    searched = worker.logits(policy, Split.HOLDOUT)
    found = recover(worker, policy, _config(worker))
    worker.adopt(policy, found.model)
    assert not worker.logits(policy, Split.HOLDOUT).equal(searched)
    request = ExportRequest(
        spec=worker.spec,
        study="tiny",
        trial=0,
        policy=policy,
        out=tmp_path / "artifact",
        recovery=found.report,
        render_card=lambda report: render_card(
            report, spec=worker.spec, structure=worker.structure, policy=policy, command="export"
        ),
    )
    report = export_artifact(worker, request)
    assert report.splits["holdout"].searched_metric == pytest.approx(found.report.after["holdout"], abs=1e-6)
    assert report.splits["holdout"].cosine > 0.999
    assert report.recovery == found.report
    assert "## Recovery" in (tmp_path / "artifact" / "README.md").read_text()
