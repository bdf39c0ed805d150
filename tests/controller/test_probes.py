"""Probes: policies that a sampler wants scored on a rung of the examples only."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from controller.dispatch import search_inline
from controller.job import Constraints
from controller.samplers import SAMPLERS, SamplerContext
from controller.samplers.context import divergence_of, share_of, want_rung, wanted_rung
from controller.storage import Repository, TrialRole, TrialState, open_database
from controller.study import Study
from controller.study_config import StopReason, StudyConfig
from search_spaces.policy import Choice, Policy
from workers.protocol import FailureReason, TrialFailure
from workers.simulated import SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_score, simulated_space

SPACE = simulated_space(3)
UNITS = [unit.name for unit in SPACE.structure.units]


def policy(*keeps: int, number_format: str = "fp32") -> Policy:
    return Policy({name: Choice(keep, number_format) for name, keep in zip(UNITS, keeps, strict=True)})


Script = Sequence[tuple[Policy, int | None]]


class ScriptedSampler(RandomSampler):
    """Wants what it was told to want, then draws at random; keeps the study, to show what it knows."""

    def __init__(self, script: Script, context: SamplerContext) -> None:
        super().__init__(seed=context.seed)
        self.script = list(script)
        self.space = context.space
        self.study: optuna.Study | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(options) for name, options in self.space.parameters().items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self.study = study
        if "fixed_params" in trial.system_attrs or not self.script:
            return {}
        wanted, rung = self.script.pop(0)
        if rung is not None:
            want_rung(study, trial, rung)
        return dict(self.space.to_parameters(wanted))

    @property
    def told(self) -> list[FrozenTrial]:
        assert self.study is not None
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    database = open_database(f"sqlite:///{tmp_path}/paretrim.db")
    yield Repository(database)
    database.dispose()


OpenStudy = Callable[..., tuple[Study, ScriptedSampler]]


@pytest.fixture
def open_study(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> OpenStudy:
    """Opens a study whose sampler follows a script, with its baselines scored."""

    def open_it(script: Script = (), **changes: Any) -> tuple[Study, ScriptedSampler]:
        made: list[ScriptedSampler] = []

        def make(context: SamplerContext) -> ScriptedSampler:
            made.append(ScriptedSampler(script, context))
            return made[0]

        monkeypatch.setitem(SAMPLERS._entries, "scripted", make)
        base = {"name": "digits", "space": SPACE, "evaluation_digest": "e", "trials": 6, "examples": 64}
        config = StudyConfig(**{**base, **changes}, sampler="scripted")
        study = Study.open(config, repository, SimulatedCosts(config.space))
        worker = SimulatedWorker(SimulatedConfig(space=config.space))
        while study.progress().baselines_done < study.progress().baselines_total:
            for request in study.ask():
                study.tell(worker.evaluate(request))
        return study, made[0]

    return open_it


def run(study: Study, count: int = 1) -> None:
    worker = SimulatedWorker(SimulatedConfig(space=study.config.space))
    for request in study.ask(count):
        study.tell(worker.evaluate(request))


def test_a_probe_counts_its_share_and_is_on_no_front(open_study: OpenStudy, repository: Repository) -> None:
    probed = policy(8, 8, 4)
    study, sampler = open_study([(probed, 0), (probed, None)])
    before = study.progress().front
    (request,) = study.ask()
    assert (request.rung, request.policy) == (0, probed)
    study.tell(SimulatedWorker(SimulatedConfig(space=SPACE)).evaluate(request))
    probe = study.trials[-1]
    assert (probe.role, probe.state, probe.rung, probe.share) == (TrialRole.PROBE, TrialState.COMPLETE, 0, 8 / 64)
    assert (probe.name, probe.number) == (f"probe {probe.number}", request.trial)
    assert study.progress().front == before
    assert (study.progress().probed, study.progress().trials_done) == (1, 0)
    assert study.remaining == 6
    expected = simulated_score(probed, SimulatedConfig(space=SPACE), 0)
    assert repository.quality_store("e").get(probed.digest, "search", rung=0) == expected
    assert repository.quality_store("e").get(probed.digest, "search") is None
    told = sampler.told[-1]
    assert (share_of(told), divergence_of(told), wanted_rung(told.system_attrs)) == (8 / 64, expected.kl_to_dense, 0)
    assert told.values[0] == expected.value
    run(study)
    full = study.trials[-1]
    assert (full.role, full.repeat_of, full.share, full.policy) == (TrialRole.TRIAL, None, 1.0, probed)
    assert (share_of(sampler.told[-1]), divergence_of(sampler.told[-1])) == (1.0, full.kl_to_dense)
    assert study.progress().trials_done == 1
    assert study.remaining == 5


def test_eight_probes_of_an_eighth_are_one_trial(open_study: OpenStudy) -> None:
    probes = [(policy(8, 8, keep, number_format=f), 0) for keep in (6, 4, 2) for f in ("fp32", "w8a8", "w4")][:8]
    study, _ = open_study(probes, trials=2)
    run(study, 8)
    assert study.progress().trials_done == 1
    assert study.remaining == 1
    progress = search_inline(study, SimulatedWorker(SimulatedConfig(space=SPACE)))
    assert (progress.trials_done, progress.probed, progress.stop) == (2, 8, StopReason.TRIALS)
    assert [t.role for t in study.trials].count(TrialRole.TRIAL) == 1


def test_a_probe_is_answered_by_the_same_probe_and_by_a_whole_score(open_study: OpenStudy) -> None:
    first, second = policy(8, 8, 4), policy(8, 4, 4)
    study, sampler = open_study([(first, 0), (first, 0), (first, 1), (second, None), (second, 0)], trials=3)
    run(study)
    assert study.ask(1)[0].rung == 1
    numbers = {(t.policy, t.rung): t.number for t in study.trials if t.repeat_of is None}
    repeat = study.trials[-2]
    assert (repeat.repeat_of, repeat.role) == (numbers[first, 0], TrialRole.PROBE)
    assert [share_of(t) for t in sampler.told[-2:]] == [0.125, 0.125]
    run(study)
    answered = study.ask(1) and study.trials[-2]
    assert answered
    assert (answered.policy, answered.role, answered.share) == (second, TrialRole.PROBE, 1.0)
    assert answered.repeat_of == numbers.get((second, None), answered.number - 1)
    assert study.progress().trials_done == 1


def test_a_probe_that_is_pending_is_not_asked_twice(open_study: OpenStudy) -> None:
    wanted = policy(8, 8, 4)
    study, _ = open_study([(wanted, 0), (wanted, 0), (wanted, None), (policy(8, 4, 8), 0)])
    requests = study.ask(3)
    assert [(r.policy, r.rung) for r in requests] == [(wanted, 0), (wanted, None), (policy(8, 4, 8), 0)]
    worker = SimulatedWorker(SimulatedConfig(space=SPACE))
    for request in reversed(requests):
        study.tell(worker.evaluate(request))
    assert study.progress().trials_done == 1


def test_probes_of_another_study_are_not_paid_again(open_study: OpenStudy) -> None:
    wanted = policy(8, 8, 4)
    run(open_study([(wanted, 0)])[0])
    study, sampler = open_study([(wanted, 0)], name="again", target_digest="another table")
    (request,) = study.ask()
    assert request.policy != wanted
    assert [share_of(t) for t in sampler.told if wanted_rung(t.system_attrs) == 0] == [0.125]
    (probe,) = [t for t in study.trials if t.role is TrialRole.PROBE]
    assert (probe.policy, probe.attempt) == (wanted, None)
    assert probe.kl_to_dense == simulated_score(wanted, SimulatedConfig(space=SPACE), 0).kl_to_dense


def test_probes_may_break_constraints_and_are_told_so(open_study: OpenStudy) -> None:
    wanted = policy(8, 8, 6)
    study, sampler = open_study([(wanted, 0)], constraints=Constraints(max_latency_ms=1.2))
    run(study)
    assert (study.trials[-1].state, study.trials[-1].violations) == (TrialState.COMPLETE, {})
    assert sampler.told[-1].constraints["max_latency_ms"] > 0


def test_a_failed_probe_is_told_as_a_failure(open_study: OpenStudy) -> None:
    wanted = policy(8, 8, 4)
    study, sampler = open_study([(wanted, 0), (wanted, 0)])
    (request,) = study.ask()
    reason = FailureReason.OUT_OF_MEMORY
    study.tell(TrialFailure(trial=request.trial, attempt=request.attempt, reason=reason, message="as ordered"))
    assert study.trials[request.trial].state is TrialState.FAIL
    assert sampler.told[-1].state is optuna.trial.TrialState.FAIL
    (request,) = study.ask()
    assert request.policy != wanted


def test_probes_go_on_after_a_restart(open_study: OpenStudy) -> None:
    script = [(policy(8, 8, 4), 0), (policy(8, 4, 8), 1)]
    study, _ = open_study(script)
    run(study)
    (pending,) = study.ask()
    again, _ = open_study()
    assert (
        again.trials[:-1]
        == [replace(t, finished=s.finished) for t, s in zip(study.trials, again.trials, strict=True)][:-1]
    )
    (request,) = again.ask()
    assert (request.policy, request.rung, request.trial) == (pending.policy, 1, pending.trial)
    told, running = again._proposer._study.get_trials(deepcopy=False)[-2:]
    assert (share_of(told), divergence_of(told)) == (0.125, study.trials[-2].kl_to_dense)
    assert (wanted_rung(told.system_attrs), wanted_rung(running.system_attrs)) == (0, 1)
    again.tell(SimulatedWorker(SimulatedConfig(space=SPACE)).evaluate(request))
    assert again.trials[-1].share == 0.25
    assert again.progress().probed == 2


def test_a_rung_beyond_the_last_is_the_whole_split(open_study: OpenStudy) -> None:
    wanted = policy(8, 8, 4)
    study, _ = open_study([(wanted, 9)])
    run(study)
    probe = study.trials[-1]
    assert (probe.role, probe.share, study.progress().trials_done) == (TrialRole.PROBE, 1.0, 1)
    assert probe.policy.digest not in {member.policy_digest for member in study.progress().front}
