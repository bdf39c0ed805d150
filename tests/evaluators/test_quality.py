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
from evaluators.quality import Outputs, QualityEvaluator, kl_divergence, stack_calls
from evaluators.scores import Costs, Quality, ScoreError, Scores
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
