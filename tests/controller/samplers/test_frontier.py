"""The frontier sampler: alone in a plain Optuna study, under bounds, and against a stock sampler."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler

from controller.front import FrontMember, hypervolume
from controller.job import Constraints, Objective
from controller.samplers.choices import ChoiceGrid, costs_of_study, grid_of
from controller.samplers.context import DIVERGENCE, SHARE, SamplerContext, wanted_rung
from controller.samplers.front_model import Goal
from controller.samplers.frontier import FrontierSampler, make_frontier
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace
from workers.simulated import SimulatedConfig, SimulatedCosts, simulated_quality, simulated_space

OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS)
_PROBE_SHARE = 1 / 16


def context(space: SearchSpace, **changes: Any) -> SamplerContext:
    return SamplerContext(
        **{"seed": 0, "space": space, "cost_of": SimulatedCosts(space), "objectives": OBJECTIVES} | changes
    )


def search(space: SearchSpace, sampler: BaseSampler, budget: float) -> tuple[float, list[Policy], int]:
    """Search a simulated model; the hypervolume, the policies that were scored in full, and the number of probes."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    distributions = {name: CategoricalDistribution(values) for name, values in space.parameters().items()}
    config, costs = SimulatedConfig(space=space), SimulatedCosts(space)
    study.enqueue_trial(dict(space.to_parameters(space.dense_policy())))
    policies: list[Policy] = []
    spent, probes = 0.0, 0
    while spent < budget:
        trial = study.ask(distributions)
        policy = space.from_parameters(trial.params)
        quality = simulated_quality(policy, config)
        is_probe = wanted_rung(study.trials[trial.number].system_attrs) is not None
        if is_probe:
            trial.set_user_attr(SHARE, _PROBE_SHARE)
        else:
            policies.append(policy)
        trial.set_user_attr(DIVERGENCE, max(0.0, 0.9 - quality))
        probes += is_probe
        spent += _PROBE_SHARE if is_probe else 1.0
        study.tell(trial, [quality, costs(policy).latency_ms])
    members = [
        FrontMember(
            number=number,
            policy_digest=policy.digest,
            name="",
            quality=simulated_quality(policy, config),
            latency_ms=costs(policy).latency_ms,
            size_bytes=costs(policy).size_bytes,
        )
        for number, policy in enumerate(policies)
    ]
    return hypervolume(members, OBJECTIVES, dense=members[0]), policies, probes


def test_it_leaves_a_stock_sampler_far_behind() -> None:
    space = simulated_space(12)
    ours, policies, probes = search(space, make_frontier(context(space)), 30)
    stock, _, _ = search(space, TPESampler(seed=0, multivariate=True), 200)
    assert ours > stock
    assert probes <= 12 * 4
    assert len(set(policies)) == len(policies)


def test_single_changes_come_first_and_on_few_examples() -> None:
    space = simulated_space(3)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_frontier(context(space)))
    distributions = {name: CategoricalDistribution(values) for name, values in space.parameters().items()}
    trial = study.ask(distributions)
    policy = space.from_parameters(trial.params)
    dense = space.dense_policy()
    assert wanted_rung(study.trials[0].system_attrs) == 0
    assert sum(policy[name] != dense[name] for name in policy.choices) == 1


def test_bounds_hold_whether_or_not_they_are_objectives() -> None:
    space = simulated_space(6)
    costs = SimulatedCosts(space)
    dense = costs(space.dense_policy())
    bounds = Constraints(max_latency_ms=0.6 * dense.latency_ms, max_size_bytes=dense.size_bytes // 3)
    _, policies, _ = search(space, make_frontier(context(space, constraints=bounds)), 25)
    for policy in policies[1:]:
        assert costs(policy).latency_ms <= 0.6 * dense.latency_ms * (1 + 1e-9)
        assert costs(policy).size_bytes <= dense.size_bytes // 3


def test_three_objectives() -> None:
    space = simulated_space(4)
    objectives = (Objective.QUALITY, Objective.LATENCY_MS, Objective.SIZE_BYTES)
    sampler = make_frontier(context(space, objectives=objectives))
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    distributions = {name: CategoricalDistribution(values) for name, values in space.parameters().items()}
    config, costs = SimulatedConfig(space=space), SimulatedCosts(space)
    seen = set()
    for _ in range(40):
        trial = study.ask(distributions)
        policy = space.from_parameters(trial.params)
        seen.add(policy)
        found = costs(policy)
        study.tell(trial, [simulated_quality(policy, config), found.latency_ms, float(found.size_bytes)])
    assert len(seen) > 35


def test_a_study_rebuilt_from_its_trials_goes_on_as_it_would_have() -> None:
    space = simulated_space(4)
    distributions = {name: CategoricalDistribution(values) for name, values in space.parameters().items()}
    config, costs = SimulatedConfig(space=space), SimulatedCosts(space)

    def go_on(study: optuna.Study, count: int) -> list[Policy]:
        found = []
        for _ in range(count):
            trial = study.ask(distributions)
            policy = space.from_parameters(trial.params)
            study.tell(trial, [simulated_quality(policy, config), costs(policy).latency_ms])
            found.append(policy)
        return found

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_frontier(context(space)))
    go_on(study, 24)
    rebuilt = optuna.create_study(directions=["maximize", "minimize"], sampler=make_frontier(context(space)))
    rebuilt.add_trials(study.trials)
    # The model is fitted anew after a while only; right after a restart both have just been fitted.
    assert go_on(rebuilt, 1) == go_on(study, 1)


class TestAnyStudy:
    """A study that knows nothing of policies: parameters, exact costs, and a quality."""

    def sampler(self, quality_index: int = 0) -> FrontierSampler:
        axes: list[dict[str, tuple[Any, ...]]] = [{f"x{unit}": (4, 3, 2, 1), f"b{unit}": (16, 8)} for unit in range(5)]
        grid = ChoiceGrid(axes, lambda p: [sum(p[f"x{u}"] * p[f"b{u}"] for u in range(5))], costs=1)
        goal = Goal(
            quality_index=quality_index,
            objectives=(0,),
            reference=np.array([320.0]),
            bounds=np.array([np.inf]),
            chance=0.0,
        )
        distributions = {name: CategoricalDistribution(values) for unit in axes for name, values in unit.items()}
        return FrontierSampler(grid, distributions, goal, seed=0)

    @pytest.mark.parametrize("quality_index", [0, 1])
    def test_it_optimises(self, quality_index: int) -> None:
        directions = ["minimize", "minimize"]
        directions[quality_index] = "maximize"
        study = optuna.create_study(directions=directions, sampler=self.sampler(quality_index))

        def objective(trial: optuna.Trial) -> tuple[float, float]:
            x = [trial.suggest_categorical(f"x{unit}", (4, 3, 2, 1)) for unit in range(5)]
            b = [trial.suggest_categorical(f"b{unit}", (16, 8)) for unit in range(5)]
            loss = sum((unit + 1) * (4 - x[unit]) ** 2 * 0.005 + 0.01 * (b[unit] == 8) for unit in range(5))
            cost = float(sum(x[unit] * b[unit] for unit in range(5)))
            return (1 - loss, cost) if quality_index == 0 else (cost, 1 - loss)

        study.optimize(objective, n_trials=60)
        values = [trial.values if quality_index == 0 else trial.values[::-1] for trial in study.best_trials]
        assert any(quality > 0.93 and cost <= 165 for quality, cost in values)

    def test_a_parameter_that_the_grid_does_not_know_is_drawn(self) -> None:
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=self.sampler())
        trial = study.ask()
        assert 0 <= trial.suggest_float("other", 0, 1) <= 1


def test_constant_quality_leads_to_the_cheapest() -> None:
    space = simulated_space(3)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_frontier(context(space)))
    distributions = {name: CategoricalDistribution(values) for name, values in space.parameters().items()}
    costs = SimulatedCosts(space)
    latencies = []
    for _ in range(30):
        trial = study.ask(distributions)
        latency = costs(space.from_parameters(trial.params)).latency_ms
        study.tell(trial, [0.8, latency])
        latencies.append(latency)
    assert min(latencies) == pytest.approx(costs(space.smallest_policy()).latency_ms)


def test_a_grid_has_peaks_exactly_and_energies_as_sums() -> None:
    space = simulated_space(6)
    costs = SimulatedCosts(space)
    named = (Objective.QUALITY, Objective.ENERGY_MJ, Objective.PEAK_MEMORY_BYTES)
    grid = grid_of(context(space, objectives=named))
    assert costs_of_study(context(space)) == (Objective.LATENCY_MS, Objective.SIZE_BYTES)
    options_NU = np.random.default_rng(0).integers(grid.counts, size=(20, grid.units))
    for options, estimate in zip(options_NU, grid.estimate(options_NU), strict=True):
        exact = costs(space.from_parameters(grid.parameters(options)))
        assert estimate[2] == pytest.approx(exact.energy_mj)
        assert estimate[3] == exact.peak_memory_bytes


def test_energy_and_peak_memory_can_span_the_front() -> None:
    space = simulated_space(4)
    costs = SimulatedCosts(space)
    dense = costs(space.dense_policy())
    assert dense.peak_memory_bytes is not None
    bound = int(0.9 * dense.peak_memory_bytes)
    named = (Objective.QUALITY, Objective.ENERGY_MJ, Objective.PEAK_MEMORY_BYTES)
    limited = context(space, objectives=named, constraints=Constraints(max_peak_memory_bytes=bound))
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=make_frontier(limited))
    distributions = {name: CategoricalDistribution(values) for name, values in space.parameters().items()}
    for number in range(40):
        trial = study.ask(distributions)
        policy = space.from_parameters(trial.params)
        found = costs(policy)
        if wanted_rung(study.trials[number].system_attrs) is None:
            assert (found.peak_memory_bytes or 0) <= bound
        quality = simulated_quality(policy, SimulatedConfig(space=space))
        study.tell(trial, [quality, found.energy_mj, found.peak_memory_bytes])
