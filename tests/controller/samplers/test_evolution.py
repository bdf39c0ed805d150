"""Evolution: better than chance, the same after a restart, and at home in any Optuna study."""

from collections import Counter

import optuna
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase

from controller.job import Constraints, Objective
from controller.proposer import Proposer, Told
from controller.samplers import SamplerContext
from controller.samplers.context import wanted_rung
from controller.samplers.evolution import NOTE, make_evolution
from controller.samplers.registry import make_random
from evaluators.rungs import rung_share
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

SPACE = simulated_space(6)
OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS)


def context(seed=0, objectives=OBJECTIVES, **bounds):
    return SamplerContext(
        seed=seed,
        space=SPACE,
        cost_of=SimulatedCosts(SPACE),
        objectives=objectives,
        constraints=Constraints(**bounds),
    )


def values(policy):
    return [simulated_quality(policy, SimulatedConfig(space=SPACE)), SimulatedCosts(SPACE)(policy).latency_ms]


def step(subject):
    proposal = subject.propose()
    share = 1.0 if proposal.rung is None else rung_share(proposal.rung)
    told = Told(
        policy=proposal.policy,
        values=values(proposal.policy),
        violations={},
        attributes=subject.attributes(proposal),
        share=share,
    )
    subject.tell(proposal, told.values, {}, share=share)
    return told


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_beats_random_search_at_equal_cost(hypervolume_after, seed):
    chance = hypervolume_after(make_random, seed=seed, evaluations=400)
    assert hypervolume_after(make_evolution, seed=seed, evaluations=400) > chance + 0.02
    assert hypervolume_after(make_evolution, seed=seed, evaluations=400, rungs=False) > chance


def test_sixteen_are_scored_on_few_examples_four_on_more_and_one_on_all():
    subject = Proposer(SPACE, OBJECTIVES, make_evolution(context()))
    told = [step(subject) for _ in range(42)]
    rungs = [wanted_rung(dict(t.attributes)) for t in told]
    assert rungs == ([0] * 16 + [2] * 4 + [None]) * 2
    first = told[:21]
    assert {t.policy for t in first[16:20]} <= {t.policy for t in first[:16]}
    best = max(first[:16], key=lambda t: t.values[0])
    assert first[20].policy == best.policy
    targets = Counter(t.attributes[NOTE][1] for t in told)
    assert set(targets.values()) == {21}


def test_a_rebuilt_study_goes_on_in_the_middle_of_a_generation():
    subject = Proposer(SPACE, OBJECTIVES, make_evolution(context()))
    told = [step(subject) for _ in range(18)]
    rebuilt = Proposer(SPACE, OBJECTIVES, make_evolution(context()))
    rebuilt.restore(told)
    assert [step(rebuilt).policy for _ in range(30)] == [step(subject).policy for _ in range(30)]


def test_other_generations_start_while_one_waits():
    subject = Proposer(SPACE, OBJECTIVES, make_evolution(context()))
    pending = [subject.propose() for _ in range(40)]
    notes = [subject.attributes(proposal)[NOTE] for proposal in pending]
    assert [note[0] for note in notes] == [0] * 16 + [1] * 16 + [2] * 8
    assert len({proposal.policy for proposal in pending}) == 40


def test_targets_are_visited_in_turn():
    subject = Proposer(SPACE, OBJECTIVES, make_evolution(context()))
    visited = Counter()
    for _ in range(20 * 21):
        generation, target, _ = step(subject).attributes[NOTE]
        visited[target, generation] += 1
    assert Counter(target for target, _ in visited) == dict.fromkeys(range(10), 2)


@pytest.mark.parametrize(
    "objectives", [(Objective.QUALITY, Objective.SIZE_BYTES), (Objective.SIZE_BYTES, Objective.QUALITY)]
)
def test_size_may_be_the_only_cost_and_quality_come_last(objectives):
    space_context = context(objectives=objectives, max_latency_ms=1.5)
    subject = Proposer(SPACE, objectives, make_evolution(space_context))
    best = 0.0
    for _ in range(250):
        proposal = subject.propose()
        costs = SimulatedCosts(SPACE)(proposal.policy)
        assert costs.latency_ms <= 1.5
        quality, _ = values(proposal.policy)
        found = {Objective.QUALITY: quality, Objective.SIZE_BYTES: float(costs.size_bytes)}
        share = 1.0 if proposal.rung is None else rung_share(proposal.rung)
        best = max(best, quality if share == 1 else 0.0)
        subject.tell(proposal, [found[o] for o in objectives], {}, share=share)
    assert best > 0.6


def test_in_a_plain_study_everything_is_scored_in_full():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_evolution(context()))

    def objective(trial):
        parameters = {name: trial.suggest_categorical(name, options) for name, options in SPACE.parameters().items()}
        return values(SPACE.from_parameters(parameters))

    study.optimize(objective, n_trials=60)
    assert len(study.best_trials) > 5
    generations = Counter(trial.system_attrs[NOTE][0] for trial in study.get_trials(deepcopy=False))
    assert set(generations.values()) == {4}


class TestInOptuna(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: make_evolution(context())
