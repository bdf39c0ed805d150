"""Trials on real, tiny models: what a worker answers does not depend on what it was asked before."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.bar import Bar
from evaluators.divergence import constant_overlap
from evaluators.rungs import rung_order, rung_sizes
from evaluators.scores import QualityMeasure, ScoreError
from evaluators.size import size_bytes
from search_spaces.policy import Choice, Policy, PolicyError
from workers import calibrate
from workers.model import ModelError
from workers.protocol import Split, TrialRequest
from workers.targets import TargetConfig
from workers.trial import TrialWorker, WorkloadError, workload_of


@pytest.fixture(scope="module", params=["tiny_text", "tiny_image"])
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def worker(job: Any, tmp_path_factory: pytest.TempPathFactory) -> TrialWorker:
    return TrialWorker(job.spec(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def faithful(job: Any, worker: TrialWorker) -> TrialWorker:
    """Another worker on the same files, to which quality is fidelity."""
    return TrialWorker(job.spec(worker.spec.cache_dir, quality=QualityMeasure.FIDELITY))


def _request(policy: Policy, split: Split = Split.SEARCH) -> TrialRequest:
    return TrialRequest(trial=3, attempt="a", policy=policy, split=split)


@pytest.mark.parametrize("split", list(Split))
def test_dense_model_agrees_with_labels_that_it_gave(worker: TrialWorker, split: Split) -> None:
    report = worker.evaluate(_request(worker.space.dense_policy(), split))
    assert report.scores.quality.value == 1.0
    assert report.scores.quality.kl_to_dense == 0.0
    assert (report.trial, report.attempt) == (3, "a")


def test_labels_are_not_all_alike(worker: TrialWorker) -> None:
    labels = [example.label for example in worker.splits.search]
    assert worker.task.chance(labels) < 0.75


def test_switching_policies_back_and_forth_changes_nothing(worker: TrialWorker) -> None:
    generator = random.Random(0)
    policies = [worker.space.dense_policy(), worker.space.smallest_policy()]
    policies += [worker.space.random_policy(generator) for _ in range(6)]
    first = [worker.logits(policy, Split.SEARCH) for policy in policies]
    order = [generator.randrange(len(policies)) for _ in range(30)]
    for index in order:
        assert worker.logits(policies[index], Split.SEARCH).equal(first[index])


def test_another_worker_gives_the_same_scores_without_calibrating(
    worker: TrialWorker, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    worker.prepare(lambda done, total: calls.append((done, total)))
    assert not calls or calls[-1][0] == calls[-1][1]

    def calibrate_again(*_: object) -> None:
        raise AssertionError("variants are in the store, so nothing is left to calibrate")

    monkeypatch.setattr(calibrate, "collect_moments", calibrate_again)
    other = TrialWorker(worker.spec)
    other.prepare(lambda done, total: pytest.fail("nothing is left to make"))
    policy = worker.space.random_policy(random.Random(1))
    mine, its = worker.evaluate(_request(policy)), other.evaluate(_request(policy))
    assert dataclasses.replace(mine.scores.quality, seconds=0) == dataclasses.replace(its.scores.quality, seconds=0)
    assert other.evaluation_digest == worker.evaluation_digest


def test_scores_hold_time_costs_and_examples(worker: TrialWorker) -> None:
    policy = worker.space.random_policy(random.Random(2))
    scores = worker.evaluate(_request(policy)).scores
    assert scores.quality.seconds > 0
    assert len(scores.quality.per_example) == len(worker.splits.search)
    assert scores.costs.size_bytes == size_bytes(worker.structure, policy)
    assert 0 < scores.costs.latency_ms < worker.costs.costs(worker.space.dense_policy()).latency_ms


def test_a_score_on_a_rung_is_part_of_the_whole_score(worker: TrialWorker) -> None:
    policy = worker.space.random_policy(random.Random(3))
    whole = worker.evaluate(_request(policy)).scores
    order = rung_order(len(worker.splits.search))
    for rung, size in enumerate(rung_sizes(len(order))[:-1]):
        partial = worker.evaluate(dataclasses.replace(_request(policy), rung=rung)).scores
        assert partial.costs == whole.costs
        assert partial.quality.per_example == tuple(whole.quality.per_example[row] for row in order[:size])
        assert (partial.quality.rung, partial.quality.share) == (rung, size / len(order))


def test_splits_share_no_example(worker: TrialWorker) -> None:
    def contents(name: str) -> set[bytes]:
        examples = getattr(worker.splits, name)
        return {b"".join(t.numpy().tobytes() for t in example.inputs.values()) for example in examples}

    calibration, search, holdout = contents("calibration"), contents("search"), contents("holdout")
    assert not calibration & search
    assert not search & holdout
    assert not calibration & holdout


def test_policy_outside_the_space_is_refused(worker: TrialWorker) -> None:
    unit = worker.structure.units[0].name
    with pytest.raises(PolicyError, match="is no choice of unit"):
        worker.evaluate(_request(worker.space.dense_policy().replace(**{unit: Choice(4, "int2")})))


def test_model_with_nan_gives_a_score_error(job: Any, tmp_path: Path) -> None:
    broken = TrialWorker(job.spec(tmp_path))
    broken._assembler.model.classifier.bias[0] = float("nan")
    with pytest.raises(ScoreError, match="accuracy must be finite"):
        broken.evaluate(_request(broken.space.dense_policy()))


def test_stacked_calls_score_as_single_ones(job: Any, tmp_path: Path) -> None:
    batched = TrialWorker(job.spec(tmp_path, batch=3))
    policy = batched.space.uniform_policies()["keep 0.75, w8a8"]
    stacked = batched.logits(policy, Split.SEARCH)
    evaluator, model = batched.evaluator(Split.SEARCH), batched.model_of(policy)
    batched._assembler.scope.examples = None
    assert any(len(call.rows) > call.examples_per_call for call in evaluator.calls)
    for call in evaluator.calls:
        for start in range(0, len(call.rows), call.examples_per_call):
            part = slice(start, start + call.examples_per_call)
            with torch.inference_mode():
                single = model(**{name: value[part] for name, value in call.inputs.items()}).logits
            torch.testing.assert_close(stacked[list(call.rows[part])], single, rtol=1e-4, atol=1e-4)


class TestFidelity:
    """Quality by the overlap with the dense outputs."""

    def test_scores_are_overlaps_and_not_taken_for_those_by_the_metric(
        self, worker: TrialWorker, faithful: TrialWorker
    ) -> None:
        assert (worker.metric, faithful.metric) == ("accuracy", "fidelity")
        assert faithful.evaluation_digest != worker.evaluation_digest
        assert faithful.digest_of(QualityMeasure.METRIC) == worker.evaluation_digest
        assert worker.digest_of(QualityMeasure.FIDELITY) == faithful.evaluation_digest
        policy = worker.space.uniform_policies()["keep 0.5, w8a8"]
        dense, logits = (worker.logits(p, Split.SEARCH) for p in (worker.space.dense_policy(), policy))
        found = faithful.evaluate(_request(policy)).scores
        expected = torch.minimum(dense.double().softmax(-1), logits.double().softmax(-1)).sum(-1).tolist()
        assert found.quality.per_example == pytest.approx(expected)
        assert found.quality.metric == "fidelity"
        assert found.task_metric is None
        assert faithful.evaluate(_request(worker.space.dense_policy())).scores.quality.value == 1.0

    def test_on_the_holdout_the_metric_stands_beside_it(self, worker: TrialWorker, faithful: TrialWorker) -> None:
        policy = worker.space.uniform_policies()["keep 0.5, w8a8"]
        found = faithful.evaluate(_request(policy, Split.HOLDOUT)).scores
        metric = worker.evaluate(_request(policy, Split.HOLDOUT)).scores.quality
        assert found.task_metric is not None
        assert dataclasses.replace(found.task_metric, seconds=0) == dataclasses.replace(metric, seconds=0)
        assert found.quality.metric == "fidelity"
        assert worker.evaluate(_request(policy, Split.HOLDOUT)).scores.task_metric is None

    def test_guessing_is_worth_less_than_the_dense_model(self, worker: TrialWorker, faithful: TrialWorker) -> None:
        assert worker.chance_quality == worker.chance_metric == faithful.chance_metric
        dense = worker.logits(worker.space.dense_policy(), Split.SEARCH)
        classes = dense.shape[-1]
        assert faithful.chance_quality == pytest.approx(constant_overlap(dense))
        assert 1 / classes < faithful.chance_quality < 1

    def test_rungs_and_races_go_by_fidelity(self, worker: TrialWorker, faithful: TrialWorker) -> None:
        dense = faithful.evaluate(_request(worker.space.dense_policy())).scores.quality
        policy = worker.space.smallest_policy()
        whole = faithful.evaluate(_request(policy)).scores.quality
        part = faithful.evaluate(dataclasses.replace(_request(policy), rung=0)).scores.quality
        order = rung_order(len(whole.per_example))
        assert part.per_example == tuple(whole.per_example[row] for row in order[: len(part.per_example)])
        bar = Bar(threshold=1.0, strict=False, reference=dense.per_example)
        raced = faithful.evaluate(dataclasses.replace(_request(policy), bar=bar)).scores.quality
        assert raced.stopped_early
        assert raced.metric == "fidelity"


class TestWorkload:
    def test_text_needs_a_length(self, tiny_text: Any) -> None:
        structure = _structure(tiny_text)
        with pytest.raises(WorkloadError, match=r"set target\.sequence_length"):
            workload_of(TargetConfig(), structure)
        with pytest.raises(WorkloadError, match="at most 64 for this model; got 65"):
            workload_of(TargetConfig(sequence_length=65), structure)
        assert workload_of(TargetConfig(sequence_length=64, batch=2), structure).tokens == 128

    def test_images_fix_the_length(self, tiny_image: Any) -> None:
        structure = _structure(tiny_image)
        assert workload_of(TargetConfig(), structure).sequence_length == 17
        with pytest.raises(WorkloadError, match=r"fixes 17 tokens for each example; got target\.sequence_length=16"):
            workload_of(TargetConfig(sequence_length=16), structure)


def _structure(job: Any) -> Any:
    from workers.model import load_structure

    return load_structure(job.model)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_what_the_cpu_does(job: Any, worker: TrialWorker) -> None:
    on_gpu = TrialWorker(job.spec(worker.spec.cache_dir, device="cuda"))
    assert on_gpu.evaluation_digest == worker.evaluation_digest
    for policy in (worker.space.dense_policy(), worker.space.smallest_policy()):
        close = torch.nn.functional.cosine_similarity(
            on_gpu.logits(policy, Split.SEARCH), worker.logits(policy, Split.SEARCH)
        )
        assert close.min() > 0.99


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_named(job: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"sees none; .*or set search\.gpus_per_worker to 0"):
        TrialWorker(job.spec(tmp_path, device="cuda"))
