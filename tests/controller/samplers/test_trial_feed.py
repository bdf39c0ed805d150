"""Each trial is read once, when it has ended."""

import optuna

from controller.samplers.trial_feed import TrialFeed


def test_trials_come_once_and_late_ones_when_they_end():
    study, feed = optuna.create_study(), TrialFeed()
    first, second, third = study.ask(), study.ask(), study.ask()
    study.tell(second, 1.0)
    ended, running = feed.advance(study, study.trials[2])
    assert [t.number for t in ended] == [1]
    assert [t.number for t in running] == [0]
    study.tell(first, state=optuna.trial.TrialState.FAIL)
    study.tell(third, 2.0)
    fourth = study.ask()
    ended, running = feed.advance(study, study.trials[fourth.number])
    assert [t.number for t in ended] == [0, 2]
    assert running == []
