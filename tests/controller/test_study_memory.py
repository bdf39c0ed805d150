"""The memory of Optuna's study does what Optuna's own does, and no more work than it must."""

import pickle
import random
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from controller.proposer import Proposer, Told
from controller.samplers import SAMPLERS, SamplerContext, make_sampler
from controller.study_memory import StudyMemory
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

WIDE: dict[str, Any] = {f"unit.{number}:keep": CategoricalDistribution((4, 3, 0)) for number in range(40)}


@pytest.fixture
def storage() -> StudyMemory:
    return StudyMemory()


class TestStorage(StorageTestCase):
    """Optuna's own tests of storages."""


def study_on(storage: optuna.storages.InMemoryStorage, seed: int = 0) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=["maximize", "minimize"], storage=storage, sampler=RandomSampler(seed=seed))


def plain(trial: FrozenTrial) -> dict[str, Any]:
    """All of a trial but its times."""
    return {name: value for name, value in trial.__dict__.items() if not name.strip("_").startswith("datetime")}


def use(study: Study) -> list[FrozenTrial]:
    """Ask, tell, fail, queue and add trials."""
    for number in range(4):
        asked = study.ask(WIDE)
        asked.set_user_attr("share", 0.5)
        asked.set_constraint("size", number - 1.0)
        study.tell(asked, [0.5, number])
    study.tell(study.ask(WIDE), state=TrialState.FAIL)
    study.enqueue_trial(dict.fromkeys(WIDE, 3))
    assert set(study.ask(WIDE).params.values()) == {3}
    template = create_trial(params=dict.fromkeys(WIDE, 0), distributions=WIDE, values=[0.1, 0.2])
    study.add_trials([template] * 2)
    return study.get_trials()


def test_a_study_on_it_has_the_same_trials_as_one_on_optunas_own() -> None:
    found, expected = use(study_on(StudyMemory())), use(study_on(optuna.storages.InMemoryStorage()))
    assert [plain(trial) for trial in found] == [plain(trial) for trial in expected]
    assert [list(trial.distributions) for trial in found] == [list(trial.distributions) for trial in expected]


def test_all_parameters_at_once_are_the_same_as_one_after_the_other(storage: StudyMemory) -> None:
    study = study_on(storage)
    asked, filled = study.ask(WIDE), study.ask()
    storage.set_trial_params(filled._trial_id, asked.params, WIDE)
    first, second = (storage.get_trial(trial._trial_id) for trial in (asked, filled))
    assert (first.params, first.distributions) == (second.params, second.distributions)
    assert list(first.params) == list(second.params)
    with pytest.raises(ValueError, match="'7' not in"):
        storage.set_trial_params(filled._trial_id, {"unit.0:keep": 7}, WIDE)
    with pytest.raises(ValueError, match="dynamic value space"):
        storage.set_trial_params(filled._trial_id, {"unit.0:keep": 7}, {"unit.0:keep": CategoricalDistribution((7,))})
    assert storage.get_trial(filled._trial_id).params == first.params
    study.tell(filled, [0, 0])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError, match="can not be updated"):
        storage.set_trial_params(filled._trial_id, first.params, WIDE)


def test_a_trial_that_was_read_does_not_change(storage: StudyMemory) -> None:
    trial_id = study_on(storage).ask()._trial_id
    seen = []
    for name, distribution in WIDE.items():
        storage.set_trial_param(trial_id, name, 1, distribution)
        seen.append(storage.get_trial(trial_id))
        (listed,) = storage.get_all_trials(0, deepcopy=False)
        seen.append(listed)
    assert [len(trial.params) for trial in seen] == [1 + index // 2 for index in range(2 * len(WIDE))]
    assert [len(trial.distributions) for trial in seen] == [1 + index // 2 for index in range(2 * len(WIDE))]


def test_a_trial_that_nobody_read_is_not_copied(storage: StudyMemory) -> None:
    trial_id = study_on(storage).ask()._trial_id
    (first, *others) = WIDE.items()
    storage.set_trial_param(trial_id, first[0], 1, first[1])
    before = storage._get_trial(trial_id).params
    for name, distribution in others:
        storage.set_trial_param(trial_id, name, 1, distribution)
    assert storage.get_trial(trial_id).params is before


def test_trials_share_their_distributions(storage: StudyMemory) -> None:
    use(study_on(storage))
    finished = [trial for trial in storage.get_all_trials(0, deepcopy=False) if trial.state.is_finished()]
    assert len(finished) == 7
    assert len({id(trial.distributions) for trial in finished}) == 1
    narrow = study_on(storage)
    narrow.tell(narrow.ask({"x": CategoricalDistribution((1, 2))}), [0, 0])
    assert list(storage.get_all_trials(1)[0].distributions) == ["x"]


def test_it_can_be_pickled_with_trials(storage: StudyMemory) -> None:
    trials = use(study_on(storage))
    assert pickle.loads(pickle.dumps(storage)).get_all_trials(0) == trials


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_samplers_propose_what_they_would_to_a_plain_study(name: str) -> None:
    space = simulated_space(3)
    context = SamplerContext(seed=5, space=space, cost_of=SimulatedCosts(space))
    distributions = {name: CategoricalDistribution(options) for name, options in space.parameters().items()}
    subject = Proposer(space, context.objectives, make_sampler(name, context, trials_so_far=0))
    expected = optuna.create_study(
        directions=["maximize", "minimize"], sampler=make_sampler(name, context, trials_so_far=0)
    )
    for _ in range(14 if name == "gp" else 40):
        proposal, trial = subject.propose(), expected.ask(distributions)
        assert proposal.policy == space.from_parameters(trial.params)
        assert subject.attributes(proposal).items() <= expected._storage.get_trial_system_attrs(trial._trial_id).items()
        quality = simulated_quality(proposal.policy, SimulatedConfig(space=space))
        values = [quality, context.cost_of(proposal.policy).latency_ms]
        subject.tell(proposal, values, {})
        expected.tell(trial, values)


def test_restored_trials_are_valid_ones_of_the_space() -> None:
    space = simulated_space(3)
    context = SamplerContext(seed=5, space=space, cost_of=SimulatedCosts(space))
    subject = Proposer(space, context.objectives, make_sampler("random", context, trials_so_far=2))
    policies = [space.smallest_policy(), space.random_policy(random.Random(0))]
    noted: dict[str, Any] = {"attributes": {"paretrim:rung": 0}, "share": 0.25, "divergence": 0.1}
    subject.restore(
        [
            Told(policy=policies[0], values=[0.5, 2.0], violations={"max_latency_ms": 1.0}, **noted),
            Told(policy=policies[1], values=None, violations={}, attributes={}),
        ]
    )
    trials = subject._study.get_trials()
    for trial in trials:
        trial._validate()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert [space.from_parameters(trial.params) for trial in trials] == policies
    assert trials[0].constraints == {"max_latency_ms": 1.0}
    assert trials[0].user_attrs == {"paretrim:share": 0.25, "paretrim:kl_to_dense": 0.1}
    assert trials[0].system_attrs["paretrim:rung"] == 0
