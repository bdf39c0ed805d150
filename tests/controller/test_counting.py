"""Trials by what became of them: each counted once, and all of them in words."""

from typing import Any

from controller.counting import count_trials
from controller.storage import TrialRecord, TrialRole, TrialState
from controller.trial_counts import TrialCounts
from evaluators.scores import Costs
from workers.simulated import simulated_space

POLICY = simulated_space(2).dense_policy()


def trial(number: int, **fields: Any) -> TrialRecord:
    base: dict[str, Any] = {
        "number": number,
        "role": TrialRole.TRIAL,
        "name": f"trial {number}",
        "policy": POLICY,
        "state": TrialState.COMPLETE,
        "quality": 0.8,
        "costs": Costs(latency_ms=1.0, size_bytes=10),
    }
    return TrialRecord(**{**base, **fields})


def test_every_finished_trial_is_counted_once() -> None:
    pruned = {"state": TrialState.PRUNED}
    trials = [
        trial(0, role=TrialRole.BASELINE, name="dense"),
        trial(1, role=TrialRole.BASELINE, **pruned),
        trial(2),
        trial(3),
        trial(4, share=0.25, **pruned),
        trial(5, **pruned),
        trial(6, quality=None, **pruned),
        trial(7, repeat_of=2),
        trial(8, state=TrialState.FAIL, quality=None),
        trial(9, role=TrialRole.PROBE, rung=0, share=0.125),
        trial(10, role=TrialRole.PROBE, rung=0, state=TrialState.FAIL, quality=None),
        trial(11, state=TrialState.RUNNING, quality=None),
    ]
    counts = count_trials(trials, None)
    assert counts == TrialCounts(
        scored=2,
        stopped_early=1,
        estimated=1,
        not_scored=1,
        repeats=1,
        failed=1,
        probes=2,
        baselines=2,
        evaluations=counts.evaluations,
    )
    assert counts.trials + counts.probes + counts.baselines == len(trials) - 1
    assert counts.text == (
        "7 trials (2 scored, 1 stopped early, 1 estimated, 1 not scored for their costs, 1 repeated, 1 failed), "
        "2 probes and 2 baselines"
    )
    assert count_trials([], None).text == "0 trials and 0 baselines"


def test_parts_of_the_examples_count_their_share() -> None:
    trials = [trial(0, role=TrialRole.BASELINE), trial(1), trial(2, share=0.5, state=TrialState.PRUNED)]
    assert count_trials(trials, 64).evaluations == 1
    assert count_trials([*trials, trial(3, share=0.5, state=TrialState.PRUNED)], 64).evaluations == 2
