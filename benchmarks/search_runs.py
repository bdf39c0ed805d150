"""Searches on real evaluations, for benchmarks: one model, many samplers, each score computed once and kept in a file.

What a policy scores does not depend on who asks for it, so a folder that is given again continues where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from benchmarks.jobs import job_for
from controller.front import FrontMember, hypervolume, pareto_front
from controller.job import Constraints, Objective
from controller.preparation import describe, price
from controller.samplers.context import DIVERGENCE, SHARE, SamplerContext, wanted_rung
from evaluators.scores import QualityMeasure
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace
from workers.protocol import TrialRequest
from workers.trial import TrialWorker

Make = Callable[[SamplerContext], BaseSampler]
OBJECTIVES = (Objective.QUALITY, Objective.LATENCY_MS)
_REPEATS_ALLOWED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What was measured of one policy.

    Attributes:
        value: The quality.
        kl_to_dense: Divergence from the dense model's outputs, in nats.
        share: Share of the examples behind it.
    """

    value: float
    kl_to_dense: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How a search went.

    Attributes:
        sampler: Name of the sampler.
        seed: Its seed.
        points: (full-evaluation equivalents spent, hypervolume), one for each scored policy.
        seconds: Time that the sampler itself took.
        policies: Every policy that was scored in full, in order.
    """

    sampler: str
    seed: int
    points: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    policies: list[Policy] = field(default_factory=list)

    def at(self, spent: float) -> float:
        """Hypervolume once so much was spent."""
        return max((volume for cost, volume in self.points if cost <= spent + 1e-9), default=0.0)

    def reaches(self, volume: float) -> float | None:
        """What was spent when the hypervolume was first reached; None if it never was."""
        return next((cost for cost, found in self.points if found >= volume - 1e-12), None)


class Bench:
    """A model whose policies are scored on demand.

    Args:
        model: Folder of a model that has an example; None trains the digits transformer.
        folder: Keeps model, latency table, variants and scores.
        examples: Search examples; None takes those of the example job.
        holdout: Holdout examples; None takes those of the example job.
        quality: What policies are scored by.
    """

    def __init__(
        self,
        model: Path | None,
        folder: Path,
        *,
        examples: int | None = None,
        holdout: int | None = None,
        quality: QualityMeasure = QualityMeasure.METRIC,
    ) -> None:
        job = job_for(model, folder)
        data = {"search": examples or job.data.search, "holdout": holdout or job.data.holdout}
        changes = {"data": job.data.model_copy(update=data), "constraints": Constraints(), "quality": quality}
        self.job = job.model_copy(update=changes)
        priced = price(self.job, describe(self.job), lambda stage, done, total: None)
        self.costs = priced.costs
        self.space: SearchSpace = priced.description.space
        self.name = "digits" if model is None else model.name
        torch.set_num_threads(1)
        self.worker = TrialWorker(priced.description.spec)
        self.worker.prepare()
        self._folder = folder
        self._file = folder / f"scores-{self.worker.evaluation_digest}.jsonl"
        self._scores = dict(self._read())
        dense = self.score(self.space.dense_policy())
        self.dense = self.member(0, self.space.dense_policy(), dense)
        self.chance = self.worker.chance_quality

    def context(self, seed: int, space: SearchSpace | None = None) -> SamplerContext:
        """What a sampler may know."""
        return SamplerContext(
            seed=seed,
            space=space or self.space,
            cost_of=self.costs,
            objectives=OBJECTIVES,
            chance_quality=self.chance,
        )

    def score(self, policy: Policy, rung: int | None = None) -> Score:
        """Score a policy, or look its score up."""
        key = policy.digest if rung is None else f"{policy.digest}/{rung}"
        if key not in self._scores:
            request = TrialRequest(trial=0, attempt="", policy=policy, rung=rung)
            quality = self.worker.evaluate(request).scores.quality
            self._scores[key] = Score(value=quality.value, kl_to_dense=quality.kl_to_dense, share=quality.share)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **asdict(self._scores[key])}) + "\n")
        return self._scores[key]

    def member(self, number: int, policy: Policy, score: Score) -> FrontMember:
        """A scored policy as a member of fronts."""
        costs = self.costs.costs(policy)
        return FrontMember(
            number=number,
            policy_digest=policy.digest,
            name=f"trial {number}",
            quality=score.value,
            latency_ms=costs.latency_ms,
            size_bytes=costs.size_bytes,
        )

    def volume(self, members: list[FrontMember]) -> float:
        """Hypervolume in units of the dense model."""
        return hypervolume(members, OBJECTIVES, dense=self.dense, chance_quality=self.chance)

    def search(
        self, name: str, make: Make, *, seed: int, budget: float, space: SearchSpace | None = None, seconds: float = 1e9
    ) -> Curve:
        """Search with one sampler; what it has asked for before costs nothing, as in a study.

        Args:
            name: Name of the sampler.
            make: Makes it.
            seed: Its seed.
            budget: Full-evaluation equivalents that it may spend, the dense model apart.
            space: Part of the space that it may use.
            seconds: Time that the sampler itself may take.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        within = space or self.space
        distributions: dict[str, BaseDistribution] = {
            parameter: CategoricalDistribution(options) for parameter, options in within.parameters().items()
        }
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(self.context(seed, space)))
        if all(self.space.dense_policy()[s.unit.name] in s.choices(within.base_format) for s in within.unit_spaces):
            study.enqueue_trial(dict(within.to_parameters(self.space.dense_policy())))
            self._tell(study, study.ask(distributions), self.space.dense_policy())
        curve = Curve(sampler=name, seed=seed)
        members: list[FrontMember] = []
        seen: set[tuple[str, int | None]] = set()
        spent, repeats, thinking = 0.0, 0, 0.0
        while spent < budget - 1e-9 and repeats < _REPEATS_ALLOWED and thinking < seconds:
            started = time.perf_counter()
            trial = study.ask(distributions)
            thinking += time.perf_counter() - started
            policy = within.from_parameters(trial.params)
            rung = wanted_rung(study._storage.get_trial_system_attrs(trial._trial_id))
            score = self.score(policy, rung)
            is_new = (policy.digest, rung) not in seen
            seen.add((policy.digest, rung))
            repeats = 0 if is_new else repeats + 1
            started = time.perf_counter()
            self._tell(study, trial, policy, rung)
            thinking += time.perf_counter() - started
            if not is_new:
                continue
            spent += score.share
            if rung is None:
                members = self.front([*members, self.member(len(curve.policies) + 1, policy, score)])
                curve.policies.append(policy)
            curve.points.append((spent, self.volume(members)))
        return replace(curve, seconds=thinking)

    def stock_search(self, name: str, make: Make, *, seed: int, budget: int, seconds: float) -> Curve:
        """Like `search`, kept in the folder: a stock sampler's way depends on nothing that we change."""
        file = self.stock_file(name, seed, budget)
        if file.exists():
            body = json.loads(file.read_text(encoding="utf-8"))
            points = [(cost, volume) for cost, volume in body["points"]]
            return Curve(sampler=name, seed=seed, points=points, seconds=body["seconds"])
        curve = self.search(name, make, seed=seed, budget=budget, seconds=seconds)
        file.write_text(json.dumps({"points": curve.points, "seconds": curve.seconds}), encoding="utf-8")
        return curve

    def stock_file(self, name: str, seed: int, budget: int) -> Path:
        """Where the curve of a stock sampler is kept."""
        made_on = f"{self.worker.evaluation_digest}-{self.worker.table_checksum[:8]}"
        return self._folder / f"curve-{name.replace(' ', '-')}-{seed}-{budget}-{made_on}.json"

    def front(self, members: list[FrontMember]) -> list[FrontMember]:
        """Those that none dominates."""
        return pareto_front(members, OBJECTIVES)

    def _tell(self, study: optuna.Study, trial: Trial, policy: Policy, rung: int | None = None) -> None:
        score = self.score(policy, rung)
        trial.set_user_attr(SHARE, score.share)
        trial.set_user_attr(DIVERGENCE, score.kl_to_dense)
        study.tell(trial, [score.value, self.costs.costs(policy).latency_ms])

    def _read(self) -> Iterator[tuple[str, Score]]:
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                body = json.loads(line)
                yield body.pop("key"), Score(**body)
