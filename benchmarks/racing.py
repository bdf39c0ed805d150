"""How many examples racing saves, and what the front loses by it.

Real searches of the digits transformer with real evaluations, each run twice from the same seed, with racing and
without. The last line is JSON: `examples_ratio` is the examples evaluated without racing over those with it, over all
runs; `hypervolume_loss` the mean relative loss. Both runs make the same number of proposals: what racing saves is
counted, not spent on more trials as a job would.

A sampler that is told estimates of what was stopped goes another way than one that is told all, so that two runs differ
in hypervolume by luck as well; `hypervolume_loss` of the random sampler, which goes the same way, is free of that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.jobs import job_for
from benchmarks.recording import record
from controller.front import FrontMember, pareto_front
from controller.job import Constraints, JobSpec
from controller.preparation import describe, price
from controller.progress import measure_progress
from controller.samplers import SAMPLERS
from controller.storage import Repository, TrialRecord, TrialRole, open_database
from controller.study import Study
from controller.study_config import StudyConfig
from evaluators.scores import Quality, Scores
from workers.protocol import TrialReport, TrialRequest
from workers.trial import TrialWorker

HEADLINE_SAMPLERS = ("random", "tpe", "nsga2")
_OTHER_SAMPLERS = ("frontier",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a search ended.

    Attributes:
        examples: Examples that its trials were evaluated on, baselines apart.
        stopped: Trials that stopped early.
        stopped_wrongly: Those of them that would have entered the final front.
        trials: Trials that were not free.
        hypervolume: What its front covers.
        volumes: What its front covered after each trial, with the examples that were evaluated until then.
        seconds: Time of the evaluations.
    """

    examples: float
    stopped: int
    stopped_wrongly: int
    trials: int
    hypervolume: float
    volumes: tuple[tuple[float, float], ...]
    seconds: float

    def volume_after(self, examples: float) -> float:
        """Hypervolume once so many examples were evaluated."""
        return max((volume for spent, volume in self.volumes if spent <= examples + 0.5), default=0.0)


class Bench:
    """The digits transformer; whole scores that racing does not touch are computed once for all runs.

    Args:
        folder: Takes model, table and variants.
        scratch: Takes a database for each search, as none may find scores of another.
        batch: Examples in one call on the target; None takes the example job's.
    """

    def __init__(self, folder: Path, scratch: Path, *, batch: int | None = None) -> None:
        job = job_for(None, folder)
        target = job.target if batch is None else job.target.model_copy(update={"batch": batch})
        self.job: JobSpec = job.model_copy(update={"constraints": Constraints(), "target": target})
        priced = price(self.job, describe(self.job), lambda stage, done, total: None)
        torch.set_num_threads(1)
        self.costs = priced.costs
        self.worker = TrialWorker(priced.description.spec)
        self.worker.prepare()
        self._whole: dict[str, Quality] = {}
        self._scratch = scratch
        self._runs = 0

    def run(self, sampler: str, seed: int, *, trials: int, racing: bool) -> Outcome:
        """Search until so many trials were proposed that are not free."""
        examples = self.worker.splits.search
        self._runs += 1
        config = StudyConfig(
            name="racing",
            space=self.worker.space,
            objectives=self.job.objectives,
            sampler=sampler,
            seed=seed,
            trials=trials,
            examples=len(examples),
            racing=racing,
            evaluation_digest=self.worker.evaluation_digest,
            chance_quality=self.worker.task.chance([example.label for example in examples]),
        )
        database = open_database(f"sqlite:///{self._scratch}/run-{self._runs}.db")
        study = Study.open(config, Repository(database), self.costs)
        while not study.finished and self._proposed(study) < trials:
            for request in study.ask():
                study.tell(self._evaluate(request))
        proposed = [t for t in study.trials if t.role is not TrialRole.BASELINE and t.repeat_of is None]
        progress = study.progress()
        database.dispose()
        assert progress.hypervolume is not None
        return Outcome(
            examples=sum(trial.share for trial in proposed) * len(examples),
            stopped=sum(trial.stopped_early for trial in proposed),
            stopped_wrongly=sum(self._enters(t, progress.front) for t in proposed if t.stopped_early),
            trials=len(proposed),
            hypervolume=progress.hypervolume,
            volumes=_volumes(config, study.trials),
            seconds=sum(trial.seconds or 0.0 for trial in proposed),
        )

    def _enters(self, trial: TrialRecord, front: Sequence[FrontMember]) -> bool:
        """Whether a trial that was stopped would have entered the front, by its score on all examples."""
        request = TrialRequest(trial=trial.number, attempt="", policy=trial.policy)
        member = FrontMember(
            number=trial.number,
            policy_digest=trial.policy.digest,
            name=trial.name,
            quality=self._evaluate(request).scores.quality.value,
            latency_ms=trial.costs.latency_ms,
            size_bytes=trial.costs.size_bytes,
        )
        return member in pareto_front([*front, member], self.job.objectives)

    def _proposed(self, study: Study) -> float:
        """Trials so far; a probe counts its share, as it does with and without racing."""
        proposed = (t for t in study.trials if t.role is not TrialRole.BASELINE and t.repeat_of is None)
        return sum(t.share if t.role is TrialRole.PROBE else 1.0 for t in proposed)

    def _evaluate(self, request: TrialRequest) -> TrialReport:
        digest = request.policy.digest
        if request.bar is not None or request.rung is not None or digest not in self._whole:
            report = self.worker.evaluate(request)
            if request.bar is None and request.rung is None:
                self._whole[digest] = report.scores.quality
            return report
        scores = Scores(quality=self._whole[digest], costs=self.costs.costs(request.policy))
        return TrialReport(trial=request.trial, attempt=request.attempt, scores=scores)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="keeps the trained model; a scratch folder without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--batch", type=int, help="examples in one call on the target; the example job's without it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        bench = Bench(folder, Path(scratch), batch=arguments.batch)
        samplers = [*HEADLINE_SAMPLERS, *(name for name in _OTHER_SAMPLERS if name in SAMPLERS)]
        runs = {name: _compare(bench, name, arguments.seeds, arguments.trials) for name in samplers}
    headline = [pair for name in HEADLINE_SAMPLERS for pair in runs[name]]
    details = {
        "batch": bench.job.target.batch,
        "search_examples": len(bench.worker.splits.search),
        "trials": arguments.trials,
        "seeds": arguments.seeds,
        "by_sampler": {name: {**_figures(pairs), **_more(pairs)} for name, pairs in runs.items()},
    }
    record(
        "racing" if arguments.batch is None else f"racing-batch-{arguments.batch}", _figures(headline), details=details
    )


def _volumes(config: StudyConfig, trials: list[TrialRecord]) -> tuple[tuple[float, float], ...]:
    """Examples evaluated and hypervolume after each trial, the baselines being there from the start."""
    assert config.examples is not None
    found, spent = [], 0.0
    for count, trial in enumerate(trials, start=1):
        if trial.role is TrialRole.BASELINE:
            continue
        spent += 0.0 if trial.repeat_of is not None else trial.share * config.examples
        volume = measure_progress(config, trials[:count], elapsed_s=0.0, stop=None).hypervolume
        found.append((spent, volume or 0.0))
    return tuple(found)


def _compare(bench: Bench, sampler: str, seeds: int, trials: int) -> list[tuple[Outcome, Outcome]]:
    pairs = []
    for seed in range(seeds):
        whole = bench.run(sampler, seed, trials=trials, racing=False)
        raced = bench.run(sampler, seed, trials=trials, racing=True)
        pairs.append((whole, raced))
        sys.stdout.write(
            f"{sampler} seed {seed}: {whole.examples:.0f} examples without racing, {raced.examples:.0f} with "
            f"({raced.stopped} of {raced.trials} stopped, {raced.stopped_wrongly} wrongly), hypervolume "
            f"{whole.hypervolume:.4f} and {raced.hypervolume:.4f}, {whole.seconds:.0f} s and {raced.seconds:.0f} s\n"
        )
        sys.stdout.flush()
    return pairs


def _figures(pairs: list[tuple[Outcome, Outcome]]) -> dict[str, float]:
    return {
        "examples_ratio": round(sum(w.examples for w, _ in pairs) / sum(r.examples for _, r in pairs), 3),
        "hypervolume_loss": round(fmean(1 - r.hypervolume / w.hypervolume for w, r in pairs), 5),
    }


def _more(pairs: list[tuple[Outcome, Outcome]]) -> dict[str, float]:
    """Further figures; the gain is over a search without racing that ends after as many examples."""
    gains = [r.hypervolume / w.volume_after(r.examples) - 1 for w, r in pairs]
    return {
        "hypervolume_gain_for_equal_examples": round(fmean(gains), 5),
        "trials": sum(r.trials for _, r in pairs),
        "stopped": sum(r.stopped for _, r in pairs),
        "stopped_wrongly": sum(r.stopped_wrongly for _, r in pairs),
    }


if __name__ == "__main__":
    main()
