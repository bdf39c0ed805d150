"""A race stops what can't pass the bar, and hardly ever anything else."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.bar import Bar
from evaluators.confidence import mean_p_value, reach_p_value
from evaluators.divergence import overlap_by_target
from evaluators.quality import QualityEvaluator
from evaluators.race import mean_of_alike, race
from evaluators.rungs import rung_order, rung_sizes
from evaluators.scores import Costs, Quality, QualityMeasure, ScoreError, Scores
from evaluators.tasks import TASKS, Example

Rights = np.ndarray[tuple[int], np.dtype[np.bool_]]


def rights(pattern: Sequence[int]) -> Rights:
    return np.array(pattern, dtype=bool)


def naive_p_value(reference: Rights, candidate: Rights, seen: Rights, needed: int) -> float:
    """The same by exact fractions of counted samples, for every number of answers that the candidate may have."""
    total, n = len(reference), int(seen.sum())
    right, wrong = int(reference.sum()), int((~reference).sum())
    n_right, n_wrong = int((reference & seen).sum()), n - int((reference & seen).sum())
    lost, won = int((seen & reference & ~candidate).sum()), int((seen & ~reference & candidate).sum())

    def badness(lost: int, won: int) -> float:
        return lost * right / n_right - (won * wrong / n_wrong if n_wrong else 0)

    largest = 0.0
    for all_lost, all_won in itertools.product(range(right + 1), range(wrong + 1)):
        if right - all_lost + all_won < needed:
            continue
        if not (lost <= all_lost <= right - (n_right - lost) and won <= all_won <= wrong - (n_wrong - won)):
            continue
        chance = sum(
            math.comb(all_lost, i)
            * math.comb(right - all_lost, n_right - i)
            * math.comb(all_won, j)
            * math.comb(wrong - all_won, n_wrong - j)
            for i in range(n_right + 1)
            for j in range(n_wrong + 1)
            if badness(i, j) >= badness(lost, won) - 1e-9
        )
        largest = max(largest, chance / (math.comb(right, n_right) * math.comb(wrong, n_wrong)))
    assert total >= n
    return largest


class TestReach:
    @settings(deadline=None)
    @given(st.data())
    def test_against_counting(self, data: st.DataObject) -> None:
        examples = data.draw(st.integers(4, 14))
        patterns = st.lists(st.booleans(), min_size=examples, max_size=examples)
        reference, candidate, seen = (np.array(data.draw(patterns)) for _ in range(3))
        needed = data.draw(st.integers(0, examples))
        if not (reference & seen).any():
            return
        found = reach_p_value(reference, candidate, seen, needed)
        assert found == pytest.approx(naive_p_value(reference, candidate, seen, needed), abs=1e-9)

    @pytest.mark.parametrize("right", [3, 6, 9])
    @pytest.mark.parametrize("drawn", [3, 5])
    def test_who_has_enough_answers_rarely_gets_a_small_value(self, right: int, drawn: int) -> None:
        """Over all samples of ten examples, for every candidate that is at the bar."""
        reference = np.arange(10) < right
        samples = [rights([i in chosen for i in range(10)]) for chosen in itertools.combinations(range(10), drawn)]
        for lost in range(min(right, 10 - right) + 1):
            # As many answers won as lost: the candidate has as many as the reference, and needs as many.
            candidate = reference.copy()
            candidate[:lost], candidate[right : right + lost] = False, True
            values = np.array([reach_p_value(reference, candidate, seen, right) for seen in samples])
            for level in np.unique(values):
                assert (values <= level).mean() <= level + 1e-9

    def test_by_hand(self) -> None:
        # Ten examples, the reference right on all: at the bar nothing may be lost, and one was.
        seen, candidate = np.arange(10) < 4, np.arange(10) > 0
        assert reach_p_value(np.full(10, True), candidate, seen, 10) == 0.0
        # With two of ten to lose, of which two among four seen: C(8, 2) / C(10, 4).
        assert reach_p_value(np.full(10, True), np.arange(10) > 1, seen, 8) == pytest.approx(28 / 210)
        assert reach_p_value(np.full(10, True), np.full(10, True), seen, 8) == pytest.approx(1.0)
        assert reach_p_value(np.full(10, True), np.full(10, True), seen, 11) == 0.0

    def test_a_sample_without_a_right_answer_of_the_reference_tells_nothing(self) -> None:
        assert reach_p_value(np.arange(10) > 4, np.full(10, False), np.arange(10) < 3, 5) == 1.0


class TestMean:
    def test_against_scipy(self) -> None:
        from scipy.stats import t as student

        generator = np.random.default_rng(0)
        for count, bound in itertools.product((8, 25, 100), (-0.3, 0.0, 0.2)):
            values = generator.normal(0.1, 1.0, count)
            error = values.std(ddof=1) * math.sqrt((1 - count / 400) / count)
            expected = student.sf((values.mean() - bound) / error, count - 1)
            assert mean_p_value(values, 400, bound) == pytest.approx(expected, rel=0.02, abs=2e-4)

    def test_without_spread_there_is_no_doubt(self) -> None:
        assert mean_p_value(np.full(5, 0.1), 100, 0.2) == 1.0
        assert mean_p_value(np.full(5, 0.1), 100, 0.0) == 0.0


def evaluator_of(examples: int, **changes: Any) -> QualityEvaluator:
    """A split of two classes, all of whose labels are 1."""

    class Config:
        pad_token_id = 0

    rows = [Example(inputs={"input_ids": torch.tensor([row])}, label=1, length=1) for row in range(examples)]
    task = TASKS.get("text-classification")(None, Config())
    return QualityEvaluator(task, rows, **{"batch": 1, **changes})


def model(right: Sequence[bool] | Rights, seen: set[int] | None = None) -> Any:
    """A model that is right on these examples; notes which it has seen."""
    logits = torch.tensor([[0.0, 1.0] if is_right else [1.0, 0.0] for is_right in right])

    def forward(inputs: Mapping[str, torch.Tensor], _: int) -> torch.Tensor:
        rows = inputs["input_ids"][:, 0].tolist()
        if seen is not None:
            seen.update(rows)
        return logits[rows]

    return forward


def bar_of(reference: Rights, *, strict: bool = True, **changes: Any) -> Bar:
    values = {"threshold": float(reference.mean()), "strict": strict, **changes}
    return Bar(reference=tuple(reference.astype(float).tolist()), **values)


class TestBar:
    @pytest.mark.parametrize(
        ("threshold", "strict", "needed"),
        [(0.5, True, 51), (0.5, False, 50), (0.505, True, 51), (0.505, False, 51), (0.29, False, 29), (0.29, True, 30)],
    )
    def test_right_answers_that_it_takes(self, threshold: float, strict: bool, needed: int) -> None:
        assert Bar(threshold=threshold, strict=strict, reference=(1.0,) * 100).needed == needed

    def test_a_bar_of_another_split_is_refused(self) -> None:
        with pytest.raises(ValueError, match="each of the 40 examples of the split; got 30"):
            race(evaluator_of(40), model([True] * 40), bar_of(np.full(30, True)))


def without_time(quality: Quality) -> Quality:
    return replace(quality, seconds=0)


class TestRace:
    difficulty: ClassVar = [float(row % 50) for row in range(200)]
    evaluator: ClassVar = evaluator_of(200, difficulty=difficulty)

    def race(self, right: Rights, bar: Bar) -> Quality:
        return without_time(race(self.evaluator, model(right), bar))

    def whole(self, right: Rights) -> Quality:
        return without_time(self.evaluator.evaluate(model(right)))

    def test_a_better_model_gets_its_whole_score(self) -> None:
        reference, right = np.arange(200) % 10 > 0, np.arange(200) % 20 > 0
        assert self.race(right, bar_of(reference)) == self.whole(right)
        assert not self.whole(right).stopped_early

    def test_a_tie_passes_only_where_the_bar_is_not_strict(self) -> None:
        right = np.array(self.difficulty) < 45
        assert self.race(right, bar_of(right, strict=False)) == self.whole(right)
        assert self.race(right, bar_of(right, strict=True)).stopped_early

    def test_a_hopeless_model_sees_the_first_rung_only(self) -> None:
        seen: set[int] = set()
        right = np.arange(200) % 3 == 0
        found = race(self.evaluator, model(right, seen), bar_of(np.arange(200) % 10 > 0))
        assert seen == set(rung_order(200)[: rung_sizes(200)[0]])
        assert (found.share, found.rung, found.per_example) == (len(seen) / 200, None, ())
        assert found.value == pytest.approx(right.mean(), abs=0.2)
        assert found.stopped_early

    def test_difficult_examples_decide_between_models_that_are_nearly_alike(self) -> None:
        reference = np.array(self.difficulty) < 45
        right = reference & (np.array(self.difficulty) < 43)
        seen: set[int] = set()
        found = race(self.evaluator, model(right, seen), bar_of(reference))
        assert found.stopped_early
        assert found.share == len(seen) / 200 < 0.5
        assert found.value == pytest.approx(right.mean(), abs=0.02)
        assert found.value < reference.mean()

    def test_the_divergence_is_estimated_from_all_that_was_seen(self) -> None:
        evaluator = evaluator_of(200, difficulty=self.difficulty)
        evaluator.set_dense(evaluator.run(model(np.full(200, True))))
        right = np.array(self.difficulty) < 45
        found = race(evaluator, model(right), bar_of(np.array(self.difficulty) < 48))
        assert found.stopped_early
        assert found.kl_to_dense == pytest.approx(evaluator.evaluate(model(right)).kl_to_dense, rel=0.3)

    def test_a_model_that_gives_nan_is_never_merely_stopped(self) -> None:
        def broken(inputs: Mapping[str, torch.Tensor], _: int) -> torch.Tensor:
            return torch.full((len(inputs["input_ids"]), 2), float("nan"))

        found = race(self.evaluator, broken, bar_of(np.full(200, True)))
        with pytest.raises(ScoreError, match="accuracy must be finite; got nan"):
            Scores(quality=found, costs=Costs(latency_ms=1, size_bytes=1)).check_finite()

    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 2**32), st.integers(16, 120), st.booleans())
    def test_without_room_for_error_nothing_is_stopped_that_passes(self, seed: int, count: int, strict: bool) -> None:
        generator = np.random.default_rng(seed)
        level = generator.random(count)
        evaluator = evaluator_of(count, difficulty=generator.random(count).tolist(), batch=3)
        reference, right = (level + 0.1 * generator.standard_normal(count) < generator.random() for _ in range(2))
        bar = bar_of(reference, strict=strict, error=0.0)
        found = race(evaluator, model(right), bar)
        passes = right.sum() > reference.sum() if strict else right.sum() >= reference.sum()
        if passes:
            assert not found.stopped_early
        if found.stopped_early:
            assert 0 <= found.value <= (bar.needed - 1) / count
        else:
            assert without_time(found) == without_time(evaluator.evaluate(model(right)))

    @pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
    @pytest.mark.parametrize("quality", [0.6, 0.9])
    def test_at_the_bar_no_more_than_the_stated_error_is_stopped(self, correlation: float, quality: float) -> None:
        """Models that just pass, the hardest case, more or less alike to the one that set the bar."""
        generator = np.random.default_rng(0)
        rounds, stopped = 300, 0
        for _ in range(rounds):
            shared = generator.standard_normal(200)
            scores = [
                math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * generator.standard_normal(200)
                for _ in range(2)
            ]
            reference, right = (np.argsort(np.argsort(score)) < round(quality * 200) for score in scores)
            # No order of difficulty that depends on the models, as there is none in the study.
            found = race(self.evaluator, model(right), bar_of(reference, strict=False))
            stopped += found.stopped_early
        assert stopped / rounds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)


class TestMeanOfAlike:
    def test_all_that_is_known_is_taken_as_it_is(self) -> None:
        values = np.random.default_rng(0).random(50)
        assert mean_of_alike(values, np.arange(50.0)) == pytest.approx(values.mean())

    def test_against_averages_taken_one_by_one(self) -> None:
        generator = np.random.default_rng(0)
        difficulty = generator.random(80)
        values = difficulty + 0.1 * generator.standard_normal(80)
        values[generator.random(80) < 0.4] = np.nan
        order = np.argsort(difficulty)
        ranked = values[order]
        known = np.flatnonzero(np.isfinite(ranked))
        total = np.nansum(values)
        for place in np.flatnonzero(np.isnan(ranked)):
            first = min(max((known < place).sum() - 12, 0), len(known) - 24)
            total += ranked[known[first : first + 24]].mean()
        assert mean_of_alike(values, difficulty) == pytest.approx(total / 80)
        assert mean_of_alike(values, difficulty) == pytest.approx(difficulty.mean(), abs=0.05)


class TestRaceWithoutBounds:
    """Scores such as bits per token: tests on all rungs, approximate ones."""

    @staticmethod
    def evaluator_and_model(scores: Sequence[float]) -> tuple[QualityEvaluator, Any]:
        evaluator = evaluator_of(len(scores))
        evaluator.task = _Scores()
        return evaluator, lambda inputs, _: torch.tensor(scores)[inputs["input_ids"][:, 0]][:, None].repeat(1, 2)

    def test_far_behind_is_stopped_with_an_estimate(self) -> None:
        generator = np.random.default_rng(0)
        reference = generator.normal(-3, 1, 400)
        scores = reference - 0.5 + generator.normal(0, 0.2, 400)
        evaluator, forward = self.evaluator_and_model(scores.tolist())
        bar = Bar(threshold=float(reference.mean()), strict=True, reference=tuple(reference.tolist()))
        found = race(evaluator, forward, bar)
        assert found.share == 25 / 400
        assert found.value == pytest.approx(scores.mean(), abs=0.1)
        better, forward = self.evaluator_and_model((scores + 0.6).tolist())
        assert without_time(race(better, forward, bar)) == without_time(better.evaluate(forward))

    def test_at_the_bar_about_the_stated_error_is_stopped(self) -> None:
        generator = np.random.default_rng(1)
        rounds, stopped = 150, 0
        for _ in range(rounds):
            reference = generator.normal(-3, 1, 400)
            noise = generator.normal(0, 0.3, 400)
            evaluator, forward = self.evaluator_and_model((reference + noise - noise.mean()).tolist())
            bar = Bar(threshold=float(reference.mean()), strict=False, reference=tuple(reference.tolist()))
            stopped += race(evaluator, forward, bar).stopped_early
        assert stopped / rounds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)


class TestRaceByFidelity:
    """Right or wrong does not count, the overlap with the dense outputs does."""

    dense: ClassVar = 5 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))

    def evaluator(self) -> QualityEvaluator:
        found = evaluator_of(400, measure=QualityMeasure.FIDELITY)
        found.set_dense(found.run(forward_of(self.dense)))
        return found

    def changed(self, scale: float, generator: torch.Generator) -> torch.Tensor:
        return self.dense + scale * torch.randn(400, 2, generator=generator)

    def mean_overlap(self, noise: torch.Tensor, scale: float) -> float:
        return float(overlap_by_target(self.dense, self.dense + scale * noise).mean())

    def test_far_behind_is_stopped_with_an_estimate(self) -> None:
        evaluator, generator = self.evaluator(), torch.Generator().manual_seed(1)
        reference = evaluator.evaluate(forward_of(self.changed(0.5, generator)))
        bar = Bar(threshold=reference.value, strict=True, reference=reference.per_example)
        worse, better = self.changed(3.0, generator), self.changed(0.2, generator)
        found = race(evaluator, forward_of(worse), bar)
        assert (found.metric, found.share, found.per_example) == ("fidelity", 25 / 400, ())
        whole = evaluator.evaluate(forward_of(worse))
        assert found.value == pytest.approx(whole.value, abs=0.1)
        assert found.value < bar.threshold
        assert found.kl_to_dense == pytest.approx(whole.kl_to_dense, rel=0.8)
        passed = race(evaluator, forward_of(better), bar)
        assert without_time(passed) == without_time(evaluator.evaluate(forward_of(better)))

    def test_at_the_bar_about_the_stated_error_is_stopped(self) -> None:
        """Models as faithful as the one that sets the bar, on other examples; most lose all on a few."""
        evaluator, generator = self.evaluator(), torch.Generator().manual_seed(2)
        rounds, stopped = 150, 0
        for _ in range(rounds):
            noise = torch.randn(2, 400, 2, generator=generator)
            noise[torch.rand(2, 400, generator=generator) < 0.7] = 0
            reference = overlap_by_target(self.dense, self.dense + 2 * noise[0])
            scale = bisect(partial(self.mean_overlap, noise[1]), float(reference.mean()))
            bar = Bar(threshold=float(reference.mean()) - 1e-9, strict=False, reference=tuple(reference.tolist()))
            stopped += race(evaluator, forward_of(self.dense + scale * noise[1]), bar).stopped_early
        assert stopped / rounds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)


def forward_of(logits: torch.Tensor) -> Any:
    """A model with these logits."""
    return lambda inputs, _: logits[inputs["input_ids"][:, 0]]


def bisect(falling: Callable[[float], float], wanted: float) -> float:
    """Where a falling function reaches a value, from above."""
    low, high = 0.0, 64.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > wanted else (low, middle)
    return low


class _Scores:
    """A metric that is the model's first output."""

    metric = "score"
    right_or_wrong = False

    def score(self, logits_TC: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return logits_TC[:, 0]
