"""Sentence encoders on a worker: scores, races, gradients of embeddings, and training."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from evaluators.bar import Bar
from evaluators.quality import stack_calls
from evaluators.race import race
from evaluators.scores import QualityMeasure
from search_spaces.policy import Policy
from workers.calibrate import CalibrationError
from workers.calibrate_gradients import collect_fisher, collect_taylor
from workers.data import load_splits
from workers.model import load_model
from workers.protocol import Split, TrialRequest
from workers.recover import recover
from workers.recovery.config import RecoveryConfig
from workers.recovery.layers import RecoveryError
from workers.trial import TrialWorker, run_model

if TYPE_CHECKING:
    from conftest import TinyJob


@pytest.fixture(scope="module")
def worker(tiny_pairs: "TinyJob", tmp_path_factory: pytest.TempPathFactory) -> TrialWorker:
    return TrialWorker(tiny_pairs.spec(tmp_path_factory.mktemp("cache")))


def uniform(worker: TrialWorker, name: str) -> Policy:
    return worker.space.uniform_policies()[name]


def test_a_policy_is_scored_by_spearman_and_its_distance_from_the_dense_model(worker: TrialWorker) -> None:
    request = TrialRequest(trial=1, attempt=1, policy=worker.space.dense_policy(), split=Split.SEARCH)
    dense = worker.evaluate(request).scores.quality
    assert (dense.metric, worker.chance_metric, dense.kl_to_dense) == ("spearman_cosine", 0, 0)
    assert dense.value > 0.7
    pruned = next(name for name in worker.space.uniform_policies() if name.startswith("keep 0.25"))
    other = worker.evaluate(
        TrialRequest(trial=2, attempt=1, policy=uniform(worker, pruned), split=Split.SEARCH)
    ).scores.quality
    assert other.value < dense.value
    assert 0 < other.kl_to_dense < 1


def test_fidelity_has_spearman_beside_it_on_the_holdout(tiny_pairs: "TinyJob", tmp_path: Path) -> None:
    worker = TrialWorker(tiny_pairs.spec(tmp_path, quality=QualityMeasure.FIDELITY))
    request = TrialRequest(trial=1, attempt=1, policy=worker.space.dense_policy(), split=Split.HOLDOUT)
    scores = worker.evaluate(request).scores
    assert scores.quality.value == 1
    assert 0 < worker.chance_quality < 1
    assert scores.task_metric is not None
    assert scores.task_metric.metric == "spearman_cosine"
    assert 0.5 < scores.task_metric.value < 1


@pytest.mark.parametrize("measure", QualityMeasure)
def test_a_race_stops_what_is_hopeless_and_lets_the_dense_model_pass(
    tiny_pairs: "TinyJob", tmp_path: Path, measure: QualityMeasure
) -> None:
    worker = TrialWorker(tiny_pairs.spec(tmp_path, quality=measure))
    evaluator = worker.evaluator(Split.SEARCH)
    dense = worker.model_of(worker.space.dense_policy())
    quality = evaluator.evaluate(lambda inputs, size: run_model(dense, inputs, size))
    bar = Bar(threshold=quality.value - 0.01, strict=False, reference=quality.per_example)
    assert race(evaluator, lambda inputs, size: run_model(dense, inputs, size), bar).value == quality.value
    noise = torch.Generator().manual_seed(0)

    def useless(inputs: dict[str, torch.Tensor], size: int) -> torch.Tensor:
        return torch.randn(run_model(dense, inputs, size).shape, generator=noise)

    stopped = race(evaluator, useless, bar)
    assert stopped.stopped_early
    assert stopped.value <= bar.threshold


def test_gradients_tell_how_far_an_error_of_a_unit_turns_embeddings(tiny_pairs: "TinyJob") -> None:
    """Exactly, by the Jacobian of the directions, on the feed-forward unit of the last layer."""
    loaded = load_model(tiny_pairs.model)
    examples = load_splits(tiny_pairs.data, loaded.task, seed=0).calibration[:4]
    unit = loaded.structure.unit("layer.1.feed_forward")
    calls = stack_calls(loaded.task, examples, batch=1)
    drawn = [collect_fisher(loaded.model, [unit], calls, seed=seed)[unit.name] for seed in range(150)]
    exact = torch.zeros_like(drawn[0])
    for call in calls:
        seen: list[torch.Tensor] = []
        handle = loaded.model.get_submodule(unit.consumer).register_forward_hook(
            lambda _module, _inputs, output, seen=seen: seen.append(output.requires_grad_())
        )
        with torch.enable_grad():
            directions = functional.normalize(loaded.model(**call.inputs).logits, dim=-1)
        handle.remove()
        for entry in directions.flatten():
            (gradient,) = torch.autograd.grad(entry, seen[0], retain_graph=True)
            rows = gradient.reshape(-1, gradient.shape[-1]).double()
            exact += rows.T @ rows
    exact /= exact.diagonal().mean()
    found = torch.stack(drawn).mean(0)
    assert np.corrcoef(found.flatten(), exact.flatten())[0, 1] > 0.97


def test_the_taylor_saliency_has_no_loss_to_look_at(tiny_pairs: "TinyJob") -> None:
    loaded = load_model(tiny_pairs.model)
    examples = load_splits(tiny_pairs.data, loaded.task, seed=0).calibration[:2]
    units = [unit for unit in loaded.structure.units if unit.producers]
    with pytest.raises(CalibrationError, match=r"Taylor.*got BertForSentenceEmbedding; take another"):
        collect_taylor(loaded.model, units, stack_calls(loaded.task, examples, batch=1), None)


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_training_turns_embeddings_back_to_the_dense_ones(tiny_pairs: "TinyJob", tmp_path: Path, hidden: float) -> None:
    worker = TrialWorker(tiny_pairs.spec(tmp_path, quality=QualityMeasure.FIDELITY))
    policy = uniform(worker, next(name for name in worker.space.uniform_policies() if name.startswith("keep 0.25")))
    before = worker.quality_of(worker.separate_model(policy), Split.SEARCH)
    config = RecoveryConfig(
        source=tiny_pairs.data.source, epochs=8, batch=12, learning_rate=3e-3, evaluations=1, hidden=hidden
    )
    found = recover(worker, policy, config)
    after = worker.quality_of(found.model, Split.SEARCH)
    assert after.kl_to_dense < 0.95 * before.kl_to_dense
    assert set(found.report.after) == {"search", "holdout"}


def test_training_on_scores_alone_is_refused(tiny_pairs: "TinyJob", tmp_path: Path) -> None:
    worker = TrialWorker(tiny_pairs.spec(tmp_path))
    with pytest.raises(RecoveryError, match=r"got recovery.beta=0, which leaves nothing to learn"):
        recover(worker, worker.space.dense_policy(), RecoveryConfig(beta=0))
