"""What a search costs beside its trials: time and memory of `ask` and `tell`, with workers that answer at once.

    python -m benchmarks.controller_overhead
    python -m benchmarks.controller_overhead --parameters 50
    python -m benchmarks.controller_overhead --sampler tpe --trials 1000

The real study on a SQLite file, one process, a simulated model of units with two parameters each (keep and format),
probes and racing as in every job. A trial's time is what `ask` and `tell` took for it, proposals that needed no worker
included. `growth` compares medians of the last and the first thousand trials in full: a probe is planned ahead and
costs the sampler next to nothing, so counting probes would make later trials look dearer than they are made.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.samplers import BaseSampler

from benchmarks.recording import record
from controller.job import Objective
from controller.storage import Repository, open_database
from controller.storage.quality import QualityStore
from controller.study import Study
from controller.study_config import StudyConfig
from workers.simulated import SIMULATED_EXAMPLES, SimulatedConfig, SimulatedCosts, SimulatedWorker, simulated_space

_WINDOW = 1000
_MEGABYTE = 1e6
_SAMPLER_PARTS = ("before_trial", "infer_relative_search_space", "sample_relative", "sample_independent", "after_trial")
_DATABASE_PARTS = ("put_trial", "start_attempt", "complete", "fail")


@dataclass(slots=True)
class Stopwatch:
    """Seconds that were spent inside some functions.

    Attributes:
        seconds: Sum so far.
    """

    seconds: float = 0.0
    _inside: bool = field(default=False, repr=False)

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is timed; what it calls in turn counts once."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside = True
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started
                self._inside = False

        return timed

    def watch_methods(self, owner: object, names: Sequence[str]) -> None:
        """Time methods of one object."""
        for name in names:
            setattr(owner, name, self.watch(getattr(owner, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTime:
    """What one trial took, in milliseconds.

    Attributes:
        whole_ms: `ask` and `tell`.
        cpu_ms: Their time on the processor, which other programs do not stretch.
        sampler_ms: The sampler's part of it.
        database_ms: The database's part of it.
        is_probe: Whether it was scored on a rung only.
        stopped_early: Whether racing ended it.
    """

    whole_ms: float
    cpu_ms: float
    sampler_ms: float
    database_ms: float
    is_probe: bool
    stopped_early: bool


def main() -> None:
    """Run one study and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=400, help="two for each unit of the simulated model")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", default="frontier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-racing", action="store_true", help="score every trial in full")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the run to this file")
    arguments = parser.parse_args()
    config = replace(
        study_config(arguments.parameters // 2, arguments.sampler, arguments.trials, arguments.seed),
        racing=not arguments.no_racing,
    )
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        found = _profiled(arguments.profile, lambda: run_study(config, Path(folder), arguments.trials))
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MEGABYTE
        reopened = _reopen(config, Path(folder))
    name = f"controller_overhead-{arguments.sampler}-{arguments.parameters}"
    record(
        name,
        {
            "sampler": arguments.sampler,
            "parameters": arguments.parameters,
            "trials": len(found),
            **figures(found),
            "peak_mb": round(peak_mb, 1),
        },
        details={**details(found), **reopened},
    )


def study_config(units: int, sampler: str, trials: int, seed: int) -> StudyConfig:
    """A study of a simulated model; a trial that racing stops counts in part, so there is always one left."""
    return StudyConfig(
        name="overhead",
        space=simulated_space(units),
        objectives=(Objective.QUALITY, Objective.LATENCY_MS),
        sampler=sampler,
        seed=seed,
        trials=2 * trials,
        examples=SIMULATED_EXAMPLES,
        evaluation_digest="simulated",
    )


def run_study(config: StudyConfig, folder: Path, trials: int) -> list[TrialTime]:
    """Search until so many trials were told, the baselines apart; return what each of them took."""
    worker = SimulatedWorker(SimulatedConfig(space=config.space, seed=config.seed, rung_noise=0.3, races=True))
    database = open_database(f"sqlite:///{folder}/paretrim.db")
    repository = Repository(database)
    study = Study.open(config, repository, SimulatedCosts(config.space))
    sampler, stored = Stopwatch(), Stopwatch()
    watched: BaseSampler = study._proposer._study.sampler
    sampler.watch_methods(watched, _SAMPLER_PARTS)
    stored.watch_methods(repository, _DATABASE_PARTS)
    scores: QualityStore = study._scores
    stored.watch_methods(scores, ("get",))
    found: list[TrialTime] = []
    baselines = study.progress().baselines_total
    while len(found) < trials:
        sampler.seconds = stored.seconds = 0.0
        started = _clocks_ms()
        requests = study.ask()
        asked = _clocks_ms() - started
        if study.stop_reason is not None:
            break
        for request in requests:
            report = worker.evaluate(request)
            started = _clocks_ms()
            study.tell(report)
            whole_ms, cpu_ms = (asked + _clocks_ms() - started).tolist()
            if request.trial >= baselines:
                found.append(
                    TrialTime(
                        whole_ms=whole_ms,
                        cpu_ms=cpu_ms,
                        sampler_ms=1e3 * sampler.seconds,
                        database_ms=1e3 * stored.seconds,
                        is_probe=request.rung is not None,
                        stopped_early=report.scores.quality.stopped_early,
                    )
                )
                _tell_progress(found)
    study.close()
    database.dispose()
    return found


def _clocks_ms() -> npt.NDArray[np.float64]:
    """What the wall clock and the processor's clock show."""
    return 1e3 * np.array([time.perf_counter(), time.process_time()])


def figures(found: Sequence[TrialTime]) -> dict[str, Any]:
    """Median and 99th percentile of all trials, and the last thousand in full over the first."""
    whole = [trial.whole_ms for trial in found]
    return {
        "median_ms": round(statistics.median(whole), 2),
        "p99_ms": round(float(np.percentile(whole, 99)), 2),
        "growth": _growth([trial.whole_ms for trial in found if not trial.is_probe]),
    }


def details(found: Sequence[TrialTime]) -> dict[str, Any]:
    """Where the time goes."""
    full = [trial for trial in found if not trial.is_probe]
    parts = {
        "sampler": [trial.sampler_ms for trial in full],
        "database": [trial.database_ms for trial in full],
        "rest": [trial.whole_ms - trial.sampler_ms - trial.database_ms for trial in full],
    }
    return {
        "probes": len(found) - len(full),
        "stopped_early": sum(trial.stopped_early for trial in full),
        "cpu_median_ms": _median([trial.cpu_ms for trial in found]),
        "full_cpu_median_ms": _median([trial.cpu_ms for trial in full]),
        "cpu_growth": _growth([trial.cpu_ms for trial in full]),
        "full_median_ms": _median([trial.whole_ms for trial in full]),
        "full_mean_ms": round(float(np.mean([trial.whole_ms for trial in full])), 2) if full else None,
        "probe_median_ms": _median([trial.whole_ms for trial in found if trial.is_probe]),
        "growth_with_probes": _growth([trial.whole_ms for trial in found]),
        **{f"{part}_median_ms": _median(values) for part, values in parts.items()},
        **{f"{part}_growth": _growth(values) for part, values in parts.items()},
    }


def _growth(values: Sequence[float]) -> float | None:
    """Median of the last window over that of the first; None without any."""
    window = min(_WINDOW, len(values) // 2)
    if not window:
        return None
    return round(statistics.median(values[-window:]) / statistics.median(values[:window]), 2)


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


def _reopen(config: StudyConfig, folder: Path) -> dict[str, float]:
    """How long a new controller needs until it has the study again, and to say how far the study is."""
    database = open_database(f"sqlite:///{folder}/paretrim.db")
    started = _clocks_ms()
    study = Study.open(config, Repository(database), SimulatedCosts(config.space))
    opened = _clocks_ms()
    study.progress()
    measured = _clocks_ms()
    database.dispose()
    return {
        "reopened_s": round(float(opened[0] - started[0]) / 1e3, 2),
        "reopened_cpu_s": round(float(opened[1] - started[1]) / 1e3, 2),
        "progress_ms": round(float(measured[1] - opened[1]), 1),
    }


def _profiled(file: Path | None, run: Callable[[], list[TrialTime]]) -> list[TrialTime]:
    if file is None:
        return run()
    import cProfile

    profile = cProfile.Profile(time.process_time)
    found = profile.runcall(run)
    profile.dump_stats(file)
    return found


def _tell_progress(found: Sequence[TrialTime]) -> None:
    if len(found) % _WINDOW == 0:
        recent = [trial.whole_ms for trial in found[-_WINDOW:]]
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MEGABYTE
        sys.stderr.write(f"{len(found)} trials: {statistics.median(recent):.2f} ms a trial, {peak_mb:.0f} MB\n")


if __name__ == "__main__":
    main()
