"""The example `minilm_sst2.yaml`, end to end: search, front on the dev set, export of the pick.

    python -m benchmarks.front_minilm --model ../shared/models/minilm-sst2

The search sees one half of the dev set; accuracy is given on all of it, and on the half that the search did not see.
`latency_ratio` and `accuracy_drop` are of the fastest front member that loses at most one point of dev accuracy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.jobs import job_for
from benchmarks.recording import record
from controller.export import run_export
from controller.results import FrontRow, Progress
from controller.search import run_search

DROP = 0.01


def main() -> None:
    """Run the job and print what its front holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        job = job_for(arguments.model, Path(folder))
        job = job.model_copy(update={"search": job.search.model_copy(update={"trials": arguments.trials})})
        result = run_search(job, _show)
        dense = next(row for row in result.baselines if row.name == "dense")
        dev = partial(_dev_accuracy, search=job.data.search, holdout=job.data.holdout)
        members = [row for row in result.front if dev(row) >= dev(dense) - DROP]
        best = min(members, key=lambda row: row.latency_ms)
        artifact = Path(folder) / "artifact"
        exported = run_export(job.name, job.storage, pick=None, trial=best.trial, out=artifact)
    assert best.holdout_quality is not None
    record(
        "front_minilm",
        {
            "trials": result.trials_done,
            "latency_ratio": round(best.latency_ratio, 4),
            "accuracy_drop": round(dev(dense) - dev(best), 5),
            "holdout_drop": round((dense.holdout_quality or 0.0) - best.holdout_quality, 5),
            "exported_gap": round(abs(exported.exported_quality - exported.searched_quality), 5),
            "latency_error": round(exported.measured_latency_ms / exported.predicted_latency_ms - 1, 4),
            "measured_speedup": round((exported.dense_latency_ms or 0.0) / exported.measured_latency_ms, 3),
        },
        details={"front": [{**row.to_dict(), "dev_accuracy": dev(row)} for row in result.front]},
    )


def _dev_accuracy(row: FrontRow, *, search: int, holdout: int) -> float:
    assert row.holdout_quality is not None
    return (row.quality * search + row.holdout_quality * holdout) / (search + holdout)


def _show(progress: Progress) -> None:
    sys.stderr.write(f"{progress.stage} {progress.trials_done}/{progress.trials_total} {progress.best or ''}\n")


if __name__ == "__main__":
    main()
