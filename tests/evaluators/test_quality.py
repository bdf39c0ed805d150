"""Quality on a split: grouping into calls, order of rows, divergence, intervals."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.confidence import bootstrap_interval
from evaluators.divergence import constant_overlap, overlap_by_target
from evaluators.quality import FidelityError, Outputs, QualityEvaluator, kl_divergence, stack_calls
from evaluators.rungs import rung_order, rung_sizes
from evaluators.scores import Costs, Quality, QualityMeasure, ScoreError, Scores
from evaluators.tasks import TASKS, Example, Task


def _examples(lengths: Sequence[int]) -> list[Example]:
    return [
        Example(inputs={"input_ids": torch.full((n,), row + 1)}, label=row % 2, length=n)
        for row, n in enumerate(lengths)
    ]


def _task() -> Task:
    class Config:
        pad_token_id = 0

    return TASKS.get("text-classification")(None, Config())


LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=40)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 7), st.integers(1, 200))
def test_calls_hold_every_row_once_in_the_targets_batches(lengths: list[int], batch: int, stacked_tokens: int) -> None:
    examples = _examples(lengths)
    calls = stack_calls(_task(), examples, batch=batch, stacked_tokens=stacked_tokens)
    assert Counter(row for call in calls for row in call.rows) == Counter(range(len(lengths)))
    sizes = Counter[int]()
    for call in calls:
        ids = call.inputs["input_ids"]
        assert len(ids) == len(call.rows)
        assert len(call.rows) % call.examples_per_call == 0
        sizes[call.examples_per_call] += len(call.rows) // call.examples_per_call
        for start in range(0, len(call.rows), call.examples_per_call):
            # Every call is padded to its own longest example, as on the target.
            assert max(lengths[row] for row in call.rows[start : start + call.examples_per_call]) == ids.shape[1]
        for place, row in enumerate(call.rows):
            assert ids[place].tolist() == [row + 1] * lengths[row] + [0] * (ids.shape[1] - lengths[row])
    whole, rest = divmod(len(lengths), batch)
    expected = Counter({size: count for size, count in ((batch, whole), (rest, 1)) if size and count})
    assert sizes == expected


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 5))
def test_logits_come_back_in_the_order_of_the_split(lengths: list[int], batch: int) -> None:
    def forward(inputs: Mapping[str, torch.Tensor], _examples: int) -> torch.Tensor:
        first = inputs["input_ids"][:, 0].float()
        return torch.stack([first, -first], 1)

    logits = QualityEvaluator(_task(), _examples(lengths), batch=batch).run(forward).logits_MC
    assert logits[:, 0].tolist() == [row + 1 for row in range(len(lengths))]


def _outputs(evaluator: QualityEvaluator, logits: torch.Tensor) -> Outputs:
    """What a model gives whose logits on the split, in its order, are these."""
    rows = iter([list(call.rows) for call in evaluator.calls])
    return evaluator.run(lambda *_: logits[next(rows)])


class TestQuality:
    evaluator = QualityEvaluator(_task(), _examples([3, 1, 2, 2]), batch=1)

    def test_accuracy_by_hand(self) -> None:
        logits = torch.tensor([[2.0, 1], [2, 1], [1, 2], [1, 2]])
        quality = self.evaluator.score(_outputs(self.evaluator, logits))
        assert quality.per_example == (1, 0, 0, 1)
        assert (quality.metric, quality.value, quality.kl_to_dense) == ("accuracy", 0.5, 0)

    def test_nan_is_not_a_score(self) -> None:
        logits = torch.tensor([[float("nan"), 1], [2, 1], [1, 2], [1, 2]])
        quality = self.evaluator.score(_outputs(self.evaluator, logits))
        assert math.isnan(quality.value)
        with pytest.raises(ScoreError, match="accuracy must be finite; got nan"):
            Scores(quality=quality, costs=Costs(latency_ms=1, size_bytes=1)).check_finite()

    def test_dense_logits_set_the_divergence(self) -> None:
        evaluator = QualityEvaluator(_task(), _examples([1, 1]), batch=1)
        dense = _outputs(evaluator, torch.tensor([[0.0, 0], [math.log(3), 0]]))
        evaluator.set_dense(dense)
        assert evaluator.dense_metric == 0.5
        assert evaluator.score(dense).kl_to_dense == 0
        other = evaluator.score(_outputs(evaluator, torch.zeros(2, 2))).kl_to_dense
        assert other == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2)

    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("kl_to_dense", {"kl_to_dense": math.inf}),
            ("latency_ms", {"latency_ms": math.nan}),
            ("latency_ms", {"latency_ms": math.inf}),
        ],
    )
    def test_every_score_must_be_finite(self, name: str, fields: dict[str, Any]) -> None:
        values = {"kl_to_dense": 0.0, "latency_ms": 1.0, **fields}
        quality = Quality(
            metric="accuracy", value=1.0, per_example=(1.0,), kl_to_dense=values["kl_to_dense"], seconds=0
        )
        with pytest.raises(ScoreError, match=f"{name} must be finite"):
            Scores(quality=quality, costs=Costs(latency_ms=values["latency_ms"], size_bytes=1)).check_finite()


def test_divergence_is_scipys() -> None:
    from scipy.special import rel_entr, softmax

    generator = np.random.default_rng(0)
    reference, other = generator.normal(size=(2, 20, 5)) * 3
    expected = rel_entr(softmax(reference, -1), softmax(other, -1)).sum(-1).mean()
    assert kl_divergence(torch.from_numpy(reference), torch.from_numpy(other)) == pytest.approx(expected)


class TestFidelity:
    """Quality by the overlap with the dense outputs."""

    @staticmethod
    def evaluator(lengths: Sequence[int], dense: torch.Tensor, **changes: Any) -> QualityEvaluator:
        evaluator = QualityEvaluator(_task(), _examples(lengths), batch=1, measure=QualityMeasure.FIDELITY, **changes)
        evaluator.set_dense(_outputs(evaluator, dense))
        return evaluator

    def test_by_hand_and_the_metric_beside_it(self) -> None:
        dense = torch.tensor([[0.0, 0], [math.log(3), 0], [0, 2]])
        evaluator = self.evaluator([2, 1, 3], dense)
        outputs = _outputs(evaluator, torch.tensor([[math.log(3), 0], [0, math.log(3)], [0, 2]]))
        found = evaluator.score(outputs)
        assert found.per_example == pytest.approx((0.75, 0.5, 1.0))
        assert (found.metric, found.value) == ("fidelity", pytest.approx(0.75))
        assert (found.rung, found.share) == (None, 1.0)
        metric = evaluator.score(outputs, QualityMeasure.METRIC)
        assert (metric.metric, metric.per_example) == ("accuracy", (1, 1, 0))
        assert metric.kl_to_dense == found.kl_to_dense
        assert evaluator.dense_metric == pytest.approx(1 / 3)

    def test_the_dense_model_has_all_of_it_and_guessing_less(self) -> None:
        dense = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        evaluator = self.evaluator([1 + row % 5 for row in range(40)], dense)
        assert evaluator.score(_outputs(evaluator, dense)).value == 1.0
        assert evaluator.constant_fidelity == pytest.approx(constant_overlap(dense))
        assert 0.5 < evaluator.constant_fidelity < 1

    def test_a_rung_is_part_of_the_whole_in_rung_order(self) -> None:
        dense, other = torch.randn(2, 150, 2, generator=torch.Generator().manual_seed(1))
        evaluator = self.evaluator([1 + row % 5 for row in range(150)], dense)

        def forward(inputs: Mapping[str, torch.Tensor], _: int) -> torch.Tensor:
            return other[inputs["input_ids"][:, 0] - 1]

        whole = evaluator.evaluate(forward)
        assert whole.per_example == pytest.approx(overlap_by_target(dense, other).tolist())
        order = rung_order(150)
        for rung, size in enumerate(rung_sizes(150)[:-1]):
            part = evaluator.evaluate(forward, rung)
            assert part.per_example == tuple(whole.per_example[row] for row in order[:size])
            assert (part.metric, part.rung, part.share) == ("fidelity", rung, size / 150)

    def test_nan_is_not_a_score(self) -> None:
        evaluator = self.evaluator([1, 1], torch.zeros(2, 2))
        quality = evaluator.score(_outputs(evaluator, torch.tensor([[float("nan"), 0], [0, 0]])))
        with pytest.raises(ScoreError, match="fidelity must be finite; got nan"):
            Scores(quality=quality, costs=Costs(latency_ms=1, size_bytes=1)).check_finite()

    def test_outputs_that_can_not_all_be_kept_are_refused(self) -> None:
        with pytest.raises(FidelityError, match=r"3 targets of 2 classes; got 4 in a split; set quality: metric"):
            self.evaluator([1, 2, 1, 1], torch.zeros(4, 2), kept_bytes=24)


class TestBootstrap:
    def test_against_resampling_example_by_example(self) -> None:
        values = (np.random.default_rng(1).random(200) < 0.8).astype(float)
        drawn = np.random.default_rng(2).choice(values, size=(4000, 200)).mean(1)
        low, high = bootstrap_interval(values.tolist())
        assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.012)

    def test_against_scipy(self) -> None:
        from scipy.stats import bootstrap

        values = np.random.default_rng(3).normal(size=80)
        found = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
        assert bootstrap_interval(values.tolist()) == pytest.approx((found.low, found.high), abs=0.03)

    @given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
    def test_bounds_hold_the_mean_and_repeat(self, values: list[float]) -> None:
        low, high = bootstrap_interval(values, confidence=0.999, resamples=500)
        assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
        assert bootstrap_interval(values, confidence=0.999, resamples=500) == (low, high)

    @pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
    def test_values_must_be_there_and_finite(self, values: list[float]) -> None:
        with pytest.raises(ValueError, match="at least one example, all finite"):
            bootstrap_interval(values)
