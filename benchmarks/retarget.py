"""Moving a finished study to another target, against searching anew there: evaluations spent, hypervolume reached.

Both run as users run them: a search of 128 trials for one thread, a retarget to another number of threads or another
sequence length, and a search of as many trials for that target. Latency tables are measured on this machine.

    python -m benchmarks.retarget --model ../shared/models/minilm-sst2
    python -m benchmarks.retarget --model ../shared/models/minilm-sst2 --threads 1 --sequence-length 64
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.jobs import job_for
from benchmarks.recording import record
from controller.job import Constraints, JobSpec
from controller.results import Progress, SearchResult
from controller.retargeting.report import RetargetResult
from controller.retargeting.retarget import SAME_CALLS, run_retarget
from controller.retargeting.target_change import TargetChange
from controller.search import run_search
from evaluators.scores import QualityMeasure

TRIALS = 128


def main() -> None:
    """Search, move, search anew, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model with an example; else the digits transformer is trained")
    parser.add_argument("--folder", type=Path, help="keeps tables, variants and scores for another run")
    parser.add_argument("--threads", type=int, default=2, help="threads of the other target")
    parser.add_argument("--sequence-length", type=int, help="tokens of an example there; else those of the example")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of each search")
    parser.add_argument("--evaluations", type=int, default=SAME_CALLS, help="policies that the retarget may score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quality", type=QualityMeasure, choices=list(QualityMeasure), default=QualityMeasure.METRIC)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        change = TargetChange(
            threads=arguments.threads, sequence_length=arguments.sequence_length, evaluations=arguments.evaluations
        )
        job = _job(arguments.model, folder, arguments)
        run_search(job, _tell)
        nothing = {"evaluations": 0, "study": f"{job.name}-priced"}
        priced = run_retarget(job.name, job.storage, change.model_copy(update=nothing), _tell)
        report = run_retarget(job.name, job.storage, change, _tell)
        # The retarget took the study's own seed; a fresh search with the same one is what it saves.
        fresh = run_search(_elsewhere(job, change), _tell)
    name = "digits" if arguments.model is None else arguments.model.name
    where = report.result.study.removeprefix(f"{job.name}-")
    _record(f"retarget-{name}-{where}", priced.result, report, fresh, arguments.trials)


def _job(model: Path | None, folder: Path, arguments: argparse.Namespace) -> JobSpec:
    job = job_for(model, folder)
    search = job.search.model_copy(update={"trials": arguments.trials, "seed": arguments.seed})
    name = f"{job.name}-{arguments.trials}-{arguments.seed}-{arguments.quality}"
    changes = {"name": name, "search": search, "constraints": Constraints(), "quality": arguments.quality}
    return job.model_copy(update=changes)


def _elsewhere(job: JobSpec, change: TargetChange) -> JobSpec:
    """The same search, made for the other target from the start."""
    target = change.applied_to(job.target, None)
    name = f"{job.name}-fresh-{target.threads}t-{target.sequence_length or 0}"
    return job.model_copy(update={"name": name, "target": target})


def _record(name: str, priced: SearchResult, report: RetargetResult, fresh: SearchResult, trials: int) -> None:
    reached, wanted = report.result.hypervolume, fresh.hypervolume
    assert reached is not None
    assert wanted is not None
    figures = {
        "evaluations_share": round(report.evaluations / trials, 4),
        "hypervolume_share": round(reached / wanted, 5),
        "hypervolume_share_without_evaluations": _share(priced.hypervolume, wanted),
    }
    details = {
        "target": report.result.target,
        "origin_target": report.origin_target,
        "trials": trials,
        "evaluations": report.evaluations,
        "hypervolume": reached,
        "hypervolume_fresh": wanted,
        "hypervolume_of_the_old_front": report.hypervolume_before,
        "front": [[row.latency_ratio, row.quality, row.taken_over] for row in report.result.front],
        "front_fresh": [[row.latency_ratio, row.quality] for row in fresh.front],
    }
    record(name, figures, details=details)


def _share(volume: float | None, wanted: float) -> float | None:
    return None if volume is None else round(volume / wanted, 5)


def _tell(progress: Progress) -> None:
    sys.stderr.write(f"{progress.elapsed_s:.0f} s: {progress.stage} {progress.trials_done}/{progress.trials_total}\n")


if __name__ == "__main__":
    main()
