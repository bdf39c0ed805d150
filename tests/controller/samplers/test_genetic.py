"""Genetic samplers that remember propose what Optuna's own propose."""

import warnings

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from controller.samplers import genetic

DISTRIBUTIONS = {f"p{number}": CategoricalDistribution([0, 1, 2, 3]) for number in range(6)}
DISTRIBUTIONS["single"] = CategoricalDistribution(["only"])


def proposals(sampler: optuna.samplers.BaseSampler, count: int = 90) -> list[dict]:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    found = []
    for number in range(count):
        trial = study.ask(DISTRIBUTIONS)
        found.append(trial.params)
        values = [value for value in trial.params.values() if value != "only"]
        if number % 7 == 3:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, [sum(values), sum(value**2 for value in values)])
    return found


@pytest.mark.parametrize("name", ["NSGAIISampler", "NSGAIIISampler"])
def test_proposals_are_optunas(name: str) -> None:
    options = {"seed": 1, "population_size": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        ours = getattr(genetic, name)(DISTRIBUTIONS, **options)
        theirs = getattr(optuna.samplers, name)(**options)
    assert proposals(ours) == proposals(theirs)


def test_a_study_goes_on_from_what_was_noted() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for sampler in (genetic.NSGAIISampler(DISTRIBUTIONS, seed=n, population_size=5) for n in range(3)):
        study.sampler = sampler
        for _ in range(6):
            trial = study.ask(DISTRIBUTIONS)
            study.tell(trial, [trial.params["p0"], trial.params["p1"]])
    noted = [trial.system_attrs["NSGAIISampler:generation"] for trial in study.trials]
    assert noted == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 3
