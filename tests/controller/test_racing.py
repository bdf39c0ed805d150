"""What trials are raced against, and studies in which they race."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.dispatch import search_inline
from controller.front import FrontMember, pareto_front
from controller.job import Constraints, Objective
from controller.racing import Racing
from controller.samplers.context import share_of
from controller.storage import Repository, TellOutcome, TrialRecord, TrialRole, TrialState, open_database
from controller.study import Study
from controller.study_config import StudyConfig
from evaluators.bar import Bar
from evaluators.quality import QualityEvaluator
from evaluators.race import race
from evaluators.scores import Costs, Quality
from evaluators.tasks import TASKS, Example
from search_spaces.policy import Choice, Policy
from workers.simulated import SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_quality, simulated_space

SPACE = simulated_space(3)
BOTH = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)
EXAMPLES = 20


class Scores:
    """Scores of examples without a database."""

    def __init__(self) -> None:
        self.by_policy: dict[str, Quality] = {}
        self.asked = 0

    def get(self, digest: str, _split: str) -> Quality | None:
        self.asked += 1
        return self.by_policy.get(digest)


def trial(
    number: int,
    right: int,
    latency_ms: float,
    size_bytes: int = 1,
    *,
    role: TrialRole = TrialRole.TRIAL,
    **changes: Any,
) -> TrialRecord:
    """A finished trial that is right on the first so many of 20 examples."""
    values: dict[str, Any] = {
        "name": f"trial {number}",
        "policy": Policy({"unit": Choice(number, "fp32")}),
        "state": TrialState.COMPLETE,
        "quality": right / EXAMPLES,
        "costs": Costs(latency_ms=latency_ms, size_bytes=size_bytes),
    }
    return TrialRecord(number=number, role=TrialRole.BASELINE if number == 0 else role, **{**values, **changes})


def waiting(latency_ms: float, size_bytes: int = 1, **changes: Any) -> TrialRecord:
    return trial(99, 0, latency_ms, size_bytes, state=TrialState.RUNNING, quality=None, **changes)


def racing_of(*trials: TrialRecord, objectives: tuple[Objective, ...] = BOTH[:2], **changes: Any) -> Racing:
    scores = Scores()
    config = StudyConfig(name="s", space=SPACE, evaluation_digest="e", objectives=objectives, **changes)
    racing = Racing(config, scores)  # type: ignore[arg-type]
    for record in trials:
        if record.quality is not None:
            right = round(record.quality * EXAMPLES)
            scores.by_policy[record.policy.digest] = Quality(
                metric="accuracy",
                value=record.quality,
                per_example=tuple(float(i < right) for i in range(EXAMPLES)),
                kl_to_dense=0.0,
                seconds=0.0,
            )
        racing.add(record)
    return racing


DENSE = trial(0, 18, 10.0, 100)


class TestBar:
    def test_the_best_that_costs_no_more_sets_it(self) -> None:
        racing = racing_of(DENSE, trial(1, 10, 2.0), trial(2, 14, 4.0), trial(3, 16, 6.0), trial(4, 12, 4.5))
        bar = racing.bar(waiting(5.0))
        assert bar is not None
        assert (bar.threshold, bar.strict, sum(bar.reference), bar.error) == (14 / EXAMPLES, True, 14, 0.05)
        assert racing.bar(waiting(1.0)) is None

    def test_of_equal_costs_an_equal_quality_is_enough(self) -> None:
        racing = racing_of(DENSE, trial(1, 14, 4.0))
        assert [bar.strict for ms in (4.0, 4.1) if (bar := racing.bar(waiting(ms)))] == [False, True]

    def test_all_costs_that_are_objectives_count(self) -> None:
        records = (DENSE, trial(1, 14, 4.0, 50), trial(2, 16, 4.0, 70))
        both, latency = racing_of(*records, objectives=BOTH), racing_of(*records)
        assert [bar and bar.threshold for bar in (both.bar(waiting(5.0, 60)), latency.bar(waiting(5.0, 60)))] == [
            0.7,
            0.8,
        ]
        assert both.bar(waiting(5.0, 40)) is None

    def test_a_policy_outside_the_constraints_sets_none(self) -> None:
        records = (DENSE, trial(1, 14, 4.0, 50), trial(2, 16, 4.0, 70))
        bar = racing_of(*records, constraints=Constraints(max_size_bytes=60)).bar(waiting(5.0, 30))
        assert bar is not None
        assert bar.threshold == 14 / EXAMPLES

    def test_nothing_may_fall_below_the_quality_that_is_asked_for(self) -> None:
        constraints = Constraints(max_quality_drop=0.1)
        racing = racing_of(DENSE, trial(1, 14, 4.0), trial(2, 17, 6.0), constraints=constraints)
        low, high = racing.bar(waiting(5.0)), racing.bar(waiting(7.0))
        assert low is not None
        assert high is not None
        assert (low.threshold, low.strict, low.needed, sum(low.reference)) == (pytest.approx(0.8), False, 16, 18)
        assert (high.threshold, high.strict, high.needed) == (17 / EXAMPLES, True, 18)

    @pytest.mark.parametrize(
        "record",
        [
            trial(1, 14, 4.0, state=TrialState.PRUNED, share=0.25),
            trial(1, 14, 4.0, role=TrialRole.PROBE, rung=0, share=0.25),
            trial(1, 14, 4.0, state=TrialState.FAIL, quality=None),
            trial(1, 14, 4.0, repeat_of=0),
        ],
    )
    def test_only_whole_scores_set_it(self, record: TrialRecord) -> None:
        assert racing_of(DENSE, record).bar(waiting(5.0)) is None

    def test_baselines_and_probes_do_not_race(self) -> None:
        racing = racing_of(DENSE, trial(1, 14, 4.0))
        assert racing.bar(waiting(5.0, role=TrialRole.PROBE, rung=0)) is None
        assert racing.bar(replace(waiting(5.0), role=TrialRole.BASELINE)) is None
        assert racing_of(DENSE, trial(1, 14, 4.0), racing=False).bar(waiting(5.0)) is None
        assert racing_of().bar(waiting(5.0)) is None

    def test_scores_of_examples_are_read_once(self) -> None:
        racing = racing_of(DENSE, trial(1, 14, 4.0))
        for _ in range(5):
            racing.bar(waiting(5.0))
        assert racing._scores.asked == 1  # type: ignore[attr-defined]

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=25),
        st.booleans(),
        st.sampled_from([None, 0.1, 0.2]),
    )
    def test_who_fails_the_bar_is_not_on_the_final_front(
        self, rows: list[tuple[int, int, int]], both: bool, drop: float | None
    ) -> None:
        objectives = BOTH if both else BOTH[:2]
        dense = trial(0, 5, 10.0, 100)
        records = [dense, *(trial(n + 1, right, float(ms), size) for n, (right, ms, size) in enumerate(rows))]
        constraints = Constraints(max_quality_drop=drop)
        members = [member_of(record) for record in records]
        allowed = [m for m in members if drop is None or m.quality >= 5 / EXAMPLES - drop - 1e-9]
        final = {m.number for m in pareto_front(allowed, objectives)}
        for count in range(1, len(records)):
            bar = racing_of(*records[:count], objectives=objectives, constraints=constraints).bar(records[count])
            passes = bar is None or round(EXAMPLES * members[count].quality) >= bar.needed
            now = {m.number for m in pareto_front([m for m in allowed if m.number <= count], objectives)}
            assert passes == (count in now)
            assert passes or count not in final


def member_of(record: TrialRecord) -> FrontMember:
    assert record.quality is not None
    return FrontMember(
        number=record.number,
        policy_digest=record.policy.digest,
        name=record.name,
        quality=record.quality,
        latency_ms=record.costs.latency_ms,
        size_bytes=record.costs.size_bytes,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    yield Repository(database)
    database.dispose()


OpenStudy = Callable[..., Study]


@pytest.fixture
def open_study(repository: Repository) -> OpenStudy:
    def open_it(**changes: Any) -> Study:
        base = {
            "name": "s",
            "space": SPACE,
            "trials": 20,
            "sampler": "random",
            "examples": 64,
            "evaluation_digest": "e",
        }
        config = StudyConfig(**{**base, **changes})
        return Study.open(config, repository, SimulatedCosts(config.space))

    return open_it


WORKER = SimulatedWorker(SimulatedConfig(space=SPACE, races=True))


class TestStudy:
    def test_trials_that_stop_count_their_share_and_leave_the_front_as_it_is(self, open_study: OpenStudy) -> None:
        whole = open_study(name="whole", racing=False, evaluation_digest="f")
        search_inline(whole, WORKER)
        raced = open_study()
        progress = search_inline(raced, WORKER)
        assert progress.trials_done == 20
        assert progress.stopped_early > 10
        own = [t for t in raced.trials if t.role is TrialRole.TRIAL and t.repeat_of is None]
        assert len(own) > 30
        assert math.ceil(sum(t.share for t in own)) == 20
        for record in own:
            assert record.stopped_early == (record.state is TrialState.PRUNED) == (record.share < 1)
            assert record.number not in {m.number for m in progress.front if record.stopped_early}
        # The same proposals, as the random sampler does not listen: the first of them give the same front.
        assert progress.hypervolume is not None
        assert progress.hypervolume >= (whole.progress().hypervolume or 0)
        policies = {t.policy for t in raced.trials}
        assert {t.policy for t in whole.trials} <= policies

    def test_only_what_is_no_better_than_the_front_stops(self, open_study: OpenStudy) -> None:
        study = open_study()
        search_inline(study, WORKER)
        final = {m.policy_digest: m for m in study.progress().front}
        for record in study.trials:
            if record.stopped_early:
                quality = simulated_quality(record.policy, SimulatedConfig(space=SPACE))
                assert any(
                    m.quality >= quality
                    and m.latency_ms <= record.costs.latency_ms
                    and m.size_bytes <= record.costs.size_bytes
                    for m in final.values()
                )

    def test_a_study_goes_on_with_what_was_stopped(self, open_study: OpenStudy, repository: Repository) -> None:
        study = open_study()
        search_inline(study, WORKER)
        again = open_study(trials=25)
        assert again.remaining == 5
        told = again._proposer._study.get_trials(deepcopy=False)
        stopped = [t for t in again.trials if t.stopped_early]
        assert [share_of(t) for t in told].count(stopped[0].share) == len(stopped)
        search_inline(again, WORKER)
        repeats = [t for t in again.trials if t.repeat_of is not None]
        for repeat in repeats:
            earlier = again.trials[repeat.repeat_of or 0]
            assert (repeat.state, repeat.quality, repeat.share) == (earlier.state, earlier.quality, earlier.share)
        assert again.progress().trials_done == 25
        stored = repository.quality_store("e").all_of("search")
        assert {t.policy.digest for t in again.trials if t.state is TrialState.COMPLETE} == set(stored)

    def test_a_study_without_racing_sends_no_bars(self, open_study: OpenStudy) -> None:
        study = open_study(racing=False)
        while not study.finished:
            for request in study.ask():
                assert request.bar is None
                study.tell(WORKER.evaluate(request))

    def test_a_stopped_trial_is_told_once(self, open_study: OpenStudy) -> None:
        study = open_study()
        report = None
        while report is None or not report.scores.quality.stopped_early:
            (request,) = study.ask() or [None]
            if request is not None:
                report = WORKER.evaluate(request)
                assert study.tell(report) is TellOutcome.ACCEPTED
        before = study.trials
        assert study.tell(report) is TellOutcome.REPEATED
        assert study.trials == before


def test_fronts_of_replayed_searches_lose_no_more_than_the_stated_error() -> None:
    """Models of all qualities and costs, alike in what they find difficult, in random order."""

    class Config:
        pad_token_id = 0

    count, generator, lost, entered, saved, total = 200, np.random.default_rng(0), 0, 0, 0.0, 0
    rows = [Example(inputs={"input_ids": torch.tensor([row])}, label=1, length=1) for row in range(count)]
    task = TASKS.get("text-classification")(None, Config())
    for _ in range(8):
        difficulty = generator.standard_normal(count)
        evaluator = QualityEvaluator(task, rows, batch=4, difficulty=difficulty.tolist())
        done: list[tuple[np.ndarray, float]] = []
        trials = []
        for _ in range(40):
            cost = generator.random()
            strength = 0.6 + 0.8 * cost + 0.6 * generator.standard_normal()
            trials.append((difficulty + 0.7 * generator.standard_normal(count) < strength, cost))
        stopped = set()
        for number, (right, cost) in enumerate(trials):
            rivals = [r for r, c in done if c <= cost]
            if rivals:
                best = max(rivals, key=lambda r: r.sum())
                bar = Bar(threshold=best.mean(), strict=True, reference=tuple(best.astype(float).tolist()))
                logits = torch.stack([torch.tensor(~right), torch.tensor(right)], 1).float()
                found = race(evaluator, lambda inputs, _, logits=logits: logits[inputs["input_ids"][:, 0]], bar)
                saved, total = saved + 1 - found.share, total + 1
                if found.stopped_early:
                    stopped.add(number)
                    continue
            done.append((right, cost))
        final = {
            n
            for n, (right, cost) in enumerate(trials)
            if not any(r.sum() >= right.sum() and c < cost for r, c in trials)
        }
        lost, entered = lost + len(final & stopped), entered + len(final)
    assert lost <= 0.05 * entered
    assert entered > 30
    assert saved / total > 0.5
